#!/usr/bin/env bash
# Builds pinned tools into the cache: buildkitd and buildctl (tools/buildkit),
# golangci-lint (tools/lint), buildx (tools/peers), Compose (tools/compose), and into a folder of its own
# a Docker engine newer than Debian's with what it runs: dockerd (tools/engine),
# runc (tools/runc, in C too), containerd and its shim (tools/kube). One that is
# built already from the same versions by the same Go is left alone.
#
#   hack/tools.sh PROGRAM…     PROGRAM is a tool's name, or engine
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${BERTH_CACHE:-$HOME/.cache/berth}

# build PROGRAM FOLDER MODULE PACKAGE VARIABLE: stamps the module's version into
# the variable, or the tool would report none. $into is where it goes, in the
# cache; $cgo and $tags are the compiler's; $v is left out of the version.
build() {
  local program=$1 folder=$root/tools/$2 module=$3 package=$4 variable=$5 key stamp version
  key=$( (cat "$folder/go.mod" "$folder/go.sum" "$root/hack/tools.sh" && go version) | sha256sum)
  stamp=$cache/stamp/$program-${key:0:16}
  if [ -e "$stamp" ] && [ -x "$cache/$into/$program" ]; then return; fi
  rm -f "$cache/stamp/$program-"????????????????
  mkdir -p "$cache/$into"
  cd "$folder"
  version=$(go list -m -f '{{.Version}}' "$module")
  echo "tools: building $program $version (a minute or two when nothing is cached)"
  CGO_ENABLED=$cgo go build -trimpath -buildvcs=false -tags "$tags" -ldflags "-s -w -X $variable=${version#"$v"}" \
    -o "$cache/$into/$program.new" "$module${package:+/$package}"
  mv "$cache/$into/$program.new" "$cache/$into/$program" # never half a binary, never "text file busy"
  touch "$stamp"
}

# engine is what one engine runs; runc joins namespaces in C, before Go is up,
# and an engine's containers have seccomp profiles.
engine() {
  local into=engine/bin v=v
  build dockerd engine github.com/moby/moby/v2 cmd/dockerd github.com/moby/moby/v2/dockerversion.Version
  build containerd kube github.com/containerd/containerd/v2 cmd/containerd github.com/containerd/containerd/v2/version.Version
  build containerd-shim-runc-v2 kube github.com/containerd/containerd/v2 cmd/containerd-shim-runc-v2 \
    github.com/containerd/containerd/v2/version.Version
  cgo=1 tags=seccomp build runc runc github.com/opencontainers/runc '' main.version
}

mkdir -p "$cache/bin" "$cache/stamp"
exec 9>"$cache/stamp/.lock"
flock 9 # two makes at once would build everything twice
into=bin cgo=0 tags='' v=''
for program in "$@"; do
  case $program in
    buildkitd | buildctl)
      build "$program" buildkit github.com/moby/buildkit "cmd/$program" github.com/moby/buildkit/version.Version ;;
    golangci-lint)
      build "$program" lint github.com/golangci/golangci-lint/v2 cmd/golangci-lint main.version ;;
    buildx)
      build "$program" peers github.com/docker/buildx cmd/buildx github.com/docker/buildx/version.Version ;;
    docker-compose)
      v=v build "$program" compose github.com/docker/compose/v5 cmd github.com/docker/compose/v5/internal.Version ;;
    engine)
      engine ;;
    *)
      echo "tools: no tool named $program" >&2
      exit 1 ;;
  esac
done
