#!/usr/bin/env bash
# Builds the parts of a one-node Kubernetes, and kubectl, from the pinned module
# tools/kube into the cache: about ten minutes when nothing is cached. What is
# built already from the same versions by the same Go is left alone.
#
#   hack/kube/build.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${BERTH_CACHE:-$HOME/.cache/berth}
out=$cache/kube/bin

mkdir -p "$out" "$cache/stamp"
exec 9>"$cache/stamp/.kube.lock"
flock 9 # two makes at once would build everything twice
key=$( (cat "$root/tools/kube/go.mod" "$root/tools/kube/go.sum" "${BASH_SOURCE[0]}" && go version) | sha256sum)
stamp=$cache/stamp/kube-${key:0:16}
[ ! -e "$stamp" ] || exit 0

cd "$root/tools/kube"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
v=k8s.io/component-base/version
flags="-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean"
echo "kube: building Kubernetes $version, etcd and containerd (about ten minutes when nothing is cached)"
new=$cache/kube/bin.new
rm -rf "$new"
mkdir -p "$new"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$new/" \
  k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kubectl} \
  github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr} go.etcd.io/etcd/server/v3
mv "$new/server" "$new/etcd"
rm -rf "$out"
mv "$new" "$out"
rm -f "$cache/stamp/"kube-*
touch "$stamp"
