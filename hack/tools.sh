#!/usr/bin/env bash
# Builds pinned tools into the cache: buildkitd and buildctl (tools/buildkit),
# golangci-lint (tools/lint), buildx (tools/peers). One that is built already
# from the same versions by the same Go is left alone.
#
#   hack/tools.sh PROGRAM…
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${BERTH_CACHE:-$HOME/.cache/berth}

# build PROGRAM FOLDER MODULE PACKAGE VARIABLE: stamps the module's version into
# the variable, or the tool would report none.
build() {
  local program=$1 folder=$root/tools/$2 module=$3 package=$4 variable=$5 key stamp version
  key=$( (cat "$folder/go.mod" "$folder/go.sum" "$root/hack/tools.sh" && go version) | sha256sum)
  stamp=$cache/stamp/$program-${key:0:16}
  if [ -e "$stamp" ] && [ -x "$cache/bin/$program" ]; then return; fi
  rm -f "$cache/stamp/$program-"*
  cd "$folder"
  version=$(go list -m -f '{{.Version}}' "$module")
  echo "tools: building $program $version (a minute or two when nothing is cached)"
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X $variable=$version" \
    -o "$cache/bin/$program.new" "$module/$package"
  mv "$cache/bin/$program.new" "$cache/bin/$program" # never half a binary, never "text file busy"
  touch "$stamp"
}

mkdir -p "$cache/bin" "$cache/stamp"
exec 9>"$cache/stamp/.lock"
flock 9 # two makes at once would build everything twice
for program in "$@"; do
  case $program in
    buildkitd | buildctl)
      build "$program" buildkit github.com/moby/buildkit "cmd/$program" github.com/moby/buildkit/version.Version ;;
    golangci-lint)
      build "$program" lint github.com/golangci/golangci-lint/v2 cmd/golangci-lint main.version ;;
    buildx)
      build "$program" peers github.com/docker/buildx cmd/buildx github.com/docker/buildx/version.Version ;;
    *)
      echo "tools: no tool named $program" >&2
      exit 1 ;;
  esac
done
