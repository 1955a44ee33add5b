package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	bakeTargets  = 40
	bakeContext  = 300 << 20 // bytes, in one file that does not compress
	printTargets = 2000
)

// bakeScenarios are bakes: many targets over one folder, cold and unchanged, and
// a large definition that is only printed.
func (b *bench) bakeScenarios() ([]scenario, error) {
	if b.heavyRuns == 0 {
		return nil, nil
	}
	large := filepath.Join(b.dir, "large.hcl")
	if err := os.WriteFile(large, largeDefinition(), 0o644); err != nil {
		return nil, err
	}
	dir, err := b.noiseContext("shared", bakeContext)
	if err != nil {
		return nil, err
	}
	many := filepath.Join(dir, "docker-bake.hcl")
	if err := os.WriteFile(many, []byte(manyTargets(dir)), 0o644); err != nil {
		return nil, err
	}
	printed := []string{"bake", "--print", "-f", large}
	what := fmt.Sprintf("a bake of %d targets over one context of %d MiB", bakeTargets, bakeContext>>20)
	return []scenario{
		{
			title: fmt.Sprintf("`bake --print` of %d targets with matrices and functions", printTargets),
			state: "one", runs: b.heavyRuns, args: map[string][]string{"berth": printed, "buildx": printed},
		},
		b.bake(what+", nothing of it known to the daemon", dir, many, b.forget),
		b.bake(what+", unchanged", dir, many, nil),
	}, nil
}

func (b *bench) bake(title, dir, file string, before func(context.Context, string) error) scenario {
	args := []string{"bake", "--builder", "live", "--progress", "plain", "--allow", "fs.read=" + dir, "-f", file}
	return scenario{title: title, state: "one", runs: b.heavyRuns, before: before, args: map[string][]string{"berth": args, "buildx": args}}
}

// manyTargets is a definition whose targets have a step of their own each, over
// the same folder.
func manyTargets(dir string) string {
	return fmt.Sprintf(`
target "default" {
  name    = "t${n}"
  matrix  = { n = range(%d) }
  context = %q
  args    = { N = n }
  output  = ["type=cacheonly"]
  dockerfile-inline = <<EOT
FROM scratch
COPY hello /hello
ARG N
ENV N=$N
RUN --mount=type=bind,source=large,target=/large ["/hello", "note", "/note.txt"]
EOT
}
`, bakeTargets, dir)
}

// largeDefinition has matrices, functions, inheritance and a group of all.
func largeDefinition() []byte {
	var b strings.Builder
	b.WriteString(`
variable "TAG" { default = "v1" }
function "image" {
  params = [name, tag]
  result = "registry.example/${lower(name)}:${tag}"
}
target "_base" {
  args      = { VERSION = TAG }
  labels    = { "org.opencontainers.image.version" = TAG }
  platforms = ["linux/amd64", "linux/arm64"]
}
`)
	const inMatrix = 4
	var names []string
	for i := 0; i < printTargets; {
		if i%20 == 0 {
			fmt.Fprintf(&b, `
target "matrix%[1]d" {
  name     = "matrix%[1]d-${os}-${replace(version, ".", "-")}"
  matrix   = { os = ["alpine", "debian"], version = ["1.0", "2.0"] }
  inherits = ["_base"]
  context  = "services/%[1]d"
  tags     = [for t in [version, TAG] : image("Service%[1]d", t)]
  args     = { OS = upper(os), NUMBER = add(%[1]d, 1) }
}
`, i)
			names = append(names, fmt.Sprintf("%q", fmt.Sprintf("matrix%d", i)))
			i += inMatrix
			continue
		}
		fmt.Fprintf(&b, `
target "service%[1]d" {
  inherits   = ["_base"]
  context    = "services/%[1]d"
  dockerfile = %[1]d %% 2 == 0 ? "Dockerfile" : "odd.Dockerfile"
  tags       = [image("Service%[1]d", TAG)]
  args       = { NAME = format("service-%%04d", %[1]d) }
  cache-from = ["type=registry,ref=${image("cache", "service%[1]d")}"]
}
`, i)
		names = append(names, fmt.Sprintf("%q", fmt.Sprintf("service%d", i)))
		i++
	}
	fmt.Fprintf(&b, "group \"default\" {\n  targets = [%s]\n}\n", strings.Join(names, ", "))
	return []byte(b.String())
}
