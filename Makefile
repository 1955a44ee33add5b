# GNU make. `make` alone lists the targets.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c

BERTH_CACHE ?= $(HOME)/.cache/berth
export BERTH_CACHE

PREFIX      ?= /usr/local
FUZZTIME    ?= 10s
FUZZ        ?=
BENCHFLAGS  ?=
VERSION     ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || echo v1.0.0)
COMMIT      ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS     := -s -w -X github.com/berthbuild/berth/internal/cli.version=$(VERSION) -X github.com/berthbuild/berth/internal/cli.commit=$(COMMIT)
GOTEST      := go run ./hack/gotest
LINT        := $(BERTH_CACHE)/bin/golangci-lint

.DEFAULT_GOAL := help
.PHONY: help build hello quickstart quickstart-clean test unit e2e test-kube check bench scaling fuzz fuzz-bake deps tools install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build bin/berth
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/berth ./cmd/berth

hello: ## build the static program of examples/hello
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o examples/hello/hello ./examples/hello

quickstart: build hello ## start a BuildKit daemon with mutual TLS here, and build examples/hello on it
	@hack/quickstart.sh

quickstart-clean: ## end that daemon, and remove its builder and files
	@hack/quickstart.sh clean

test: unit fuzz-bake e2e ## all tests, with the race detector: the plain ones, a little fuzzing, then those with real daemons

unit: ## the tests that need no daemon and no root
	@cd bench && go test ./...
	@$(GOTEST) -race -timeout 20m ./...

e2e: deps ## the tests with real daemons (as root)
	@hack/tools.sh buildkitd buildctl docker-compose engine buildx
	@$(GOTEST) -race -tags e2e -count=1 -p 1 -timeout 85m ./test/... ./hack/...

test-kube: deps ## the tests with a real one-node Kubernetes (as root; the first time builds it, about ten minutes)
	@hack/tools.sh buildkitd buildctl
	@hack/kube/build.sh
	@$(GOTEST) -race -tags e2e,e2ekube -count=1 -timeout 30m -run '^TestKube' ./test

check: ## format, vet for three systems, lint, and the import rules
	@echo "gofmt"; files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted: $$files"; exit 1; fi
	@for os in linux darwin windows; do echo "go vet for $$os"; GOOS=$$os go vet ./...; done
	@echo "go vet -tags e2e,e2ekube"; go vet -tags e2e ./... && go vet -tags e2e,e2ekube ./test/... && go vet -tags e2e,e2ekube,bench ./test
	@echo "go vet in bench"; cd bench && go vet ./...
	@for f in hack/*.sh hack/*/*.sh examples/*/*.sh .ci/run; do bash -n "$$f"; done
	@hack/tools.sh golangci-lint
	@echo "golangci-lint"; $(LINT) run --allow-parallel-runners --build-tags e2e,e2ekube,bench ./...; cd bench && $(LINT) run --allow-parallel-runners ./...

bench: build hello deps ## measure berth beside buildx and buildctl (as root); writes docs/benchmarks.md
	@hack/tools.sh buildkitd buildctl engine buildx
	@BERTH_BENCH="-berth ../bin/berth -tools $(BERTH_CACHE)/bin -out ../docs/benchmarks.md $(BENCHFLAGS)" \
	  go test -tags e2e,bench$$([ ! -x '$(BERTH_CACHE)/kube/bin/kubelet' ] || echo ,e2ekube) -count=1 -v -timeout 3h -run '^TestBench$$' ./test

scaling: ## simulate many clients on many daemons; writes docs/scaling.md and its plot
	@go run ./hack/scaling

fuzz: ## run each fuzz target for FUZZTIME (10s), or those that FUZZ, a regular expression, matches
	@hack/fuzz.sh $(FUZZTIME) $(if $(FUZZ),'$(FUZZ)')

fuzz-bake: ## fuzz what definitions in HCL, JSON and Compose evaluate to, a minute each
	@hack/fuzz.sh 60s '^internal/bake/eval\.Fuzz(HCL|JSON)$$' '^internal/bake/compose\.FuzzLoad$$'

deps: ## install the Debian packages that the tests need, where some are missing (as root)
	@hack/deps.sh

tools: ## build the pinned tools into the cache (~/.cache/berth, or BERTH_CACHE)
	@hack/tools.sh buildkitd buildctl docker-compose engine golangci-lint buildx

install: build ## link bin/berth as PREFIX/bin/berth and as docker's buildx plugin
	@PREFIX='$(PREFIX)' hack/install.sh install

uninstall: ## undo install, and put back the plugin that was there
	@PREFIX='$(PREFIX)' hack/install.sh uninstall

clean: ## remove what was built here (the cache of tools stays)
	rm -rf bin examples/hello/hello
