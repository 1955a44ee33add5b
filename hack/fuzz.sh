#!/usr/bin/env bash
# Runs each fuzz target of the module for a while, one after the other.
#
#   hack/fuzz.sh [TIME [REGEX...]]     e.g. 10s, 5m, 100000x
#
# With regular expressions, only those targets are run whose PACKAGE.NAME one of
# them matches, such as internal/bake/eval.FuzzHCL.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
shift || true
log=$(mktemp)
trap 'rm -f "$log"' EXIT

wanted() { # TARGET [REGEX...]
  [ $# -gt 1 ] || return 0
  local target=$1 regex
  for regex in "${@:2}"; do
    [[ $target =~ $regex ]] && return 0
  done
  return 1
}

# The fuzzer of Go before 1.27 now and then takes the end of its time for a failure
# (golang.org/issue/75804). It has found nothing then: there is no input.
ended() {
  grep -A1 '^--- FAIL' "$log" | grep -qx ' *context deadline exceeded' && ! grep -q 'Failing input' "$log"
}

count=0
targets=$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd internal | sed 's/func //' | sort)
while IFS=: read -r file name; do
  dir=$(dirname "$file")
  wanted "$dir.$name" "$@" || continue
  count=$((count + 1))
  echo "fuzz: $name in $dir for $time"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$dir" 2>&1 </dev/null | tee "$log" || ended
done <<<"$targets"
if [ "$count" = 0 ]; then
  echo "fuzz: no target is called $*" >&2
  exit 1
fi
echo "fuzz: $count targets"
