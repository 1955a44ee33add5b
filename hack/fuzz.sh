#!/usr/bin/env bash
# Runs each fuzz target of the module for a while, one after the other.
#
#   hack/fuzz.sh [TIME]     e.g. 10s, 5m, 100000x
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
count=0
while IFS=: read -r file name; do
  count=$((count + 1))
  echo "fuzz: $name in $(dirname "$file") for $time"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")"
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd internal | sed 's/func //' | sort)
echo "fuzz: $count targets"
