//go:build e2e && e2ekube && linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// writeFiles makes the configuration of the cluster's parts.
func (k *Kube) writeFiles() error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	var tokens strings.Builder
	for _, user := range kubeUsers() {
		token, group := newToken(), ""
		if user == KubeAdmin {
			group = ",system:masters"
		}
		k.tokens[user] = token
		fmt.Fprintf(&tokens, "%s,%s,%s%s\n", token, user, user, group)
		if err := k.WriteConfig(k.Config(user), "token: "+token); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(k.at("cni"), 0o755); err != nil {
		return err
	}
	fill := strings.NewReplacer("DIR", k.dir, "RUNC", runc, "KUBELET_PORT", fmt.Sprint(k.ports.kubelet), "CLIENT_CA", k.certs.CA).Replace
	for name, text := range map[string]string{
		"tokens.csv":           tokens.String(),
		"containerd.toml":      fill(containerdConfig),
		"kubelet.yaml":         fill(kubeletConfig),
		"cni/10-none.conflist": `{"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "none"}]}`,
		"cni/none":             cniPlugin,
	} {
		if err := os.WriteFile(k.at(name), []byte(text), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// WriteConfig writes a kubeconfig with the given entry of a user (YAML, on one
// line). Its context is called "lab".
func (k *Kube) WriteConfig(path, user string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: lab
clusters: [{name: lab, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: me, user: {%s}}]
contexts: [{name: lab, context: {cluster: lab, user: me}}]
`, k.Server(), k.certs.CA, user)
	return os.WriteFile(path, []byte(text), 0o600)
}

// containerdConfig: restrict_oom_score_adj because root may lack
// CAP_SYS_RESOURCE; the disabled plugins want what is not there.
const containerdConfig = `version = 3
root = "DIR/containerd"
state = "DIR/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "DIR/containerd.sock"
[ttrpc]
  address = "DIR/containerd.sock.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "localhost/pause:local"
[plugins."io.containerd.cri.v1.runtime"]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["DIR/cni"]
    conf_dir = "DIR/cni"
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "RUNC"
      SystemdCgroup = false
`

// kubeletConfig: no cgroups of its own and no eviction, so that it runs in a
// container and on a full disk.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: KUBELET_PORT
readOnlyPort: 0
healthzPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: CLIENT_CA}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://DIR/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
evictionHard: {memory.available: 0%, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%, imagefs.inodesFree: 0%}
imageGCHighThresholdPercent: 100
podLogsDir: DIR/pods
volumePluginDir: DIR/plugins
syncFrequency: 2s
`

// cniPlugin only names an address: the machine's interfaces and firewall stay
// as they are.
const cniPlugin = `#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}';;
ADD) echo "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"interface\":0,\"address\":\"10.98.0.2/24\"}]}";;
esac
`

// kubeImages makes the pause image and a stand-in for moby/buildkit, which has
// berth too, as tar files; once for the package.
func kubeImages(t testing.TB) (pause, buildkit string) {
	t.Helper()
	bk := Shared(t)
	dir := filepath.Join(theRun.dir, "kube-images")
	pause, buildkit = filepath.Join(dir, "pause.tar"), filepath.Join(dir, "buildkit.tar")
	if _, err := os.Stat(buildkit); err == nil {
		return pause, buildkit
	}
	tools := FindTools(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal("lab: ", err)
	}
	script := exec.Command("bash", "-euc", imagesScript)
	script.Env = append(os.Environ(), "OUT="+dir, "ADDR="+bk.UnixAddr(), "BUILDKITD="+tools.BuildKitd, "BUILDCTL="+tools.BuildCtl,
		"RUNC="+runc, "BUSYBOX="+Busybox(t), "ROOT="+ModuleRoot(t))
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("lab: making the images: %v\n%s", err, out)
	}
	return pause, buildkit
}

// imagesScript takes runc with the libraries that it is linked to.
const imagesScript = `
mkdir -p "$OUT/pause" "$OUT/bk"
cd "$OUT"
cp "$BUSYBOX" pause/busybox
printf 'FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT ["/bin/busybox","sleep","2147483647"]\n' >pause/Dockerfile
r=$OUT/bk/root
mkdir -p "$r"/{bin,usr/bin,lib64,etc,tmp,run,root}
cp "$BUSYBOX" "$r/bin/busybox"
for a in sh cat ls sleep env mkdir rm kill; do ln -s busybox "$r/bin/$a"; done
cp "$BUILDKITD" "$BUILDCTL" "$RUNC" "$r/usr/bin/"
(cd "$ROOT" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$r/usr/bin/berth" ./cmd/berth)
{ ldd "$RUNC" || true; } | { grep -oE '/(lib|usr)[^ ]*' || true; } | sort -u | while read -r l; do
  mkdir -p "$r$(dirname "$l")"
  cp -L "$l" "$r$l"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$r/etc/passwd"
echo 'root:x:0:' >"$r/etc/group"
printf 'FROM scratch\nCOPY root/ /\nENV PATH=/usr/bin:/bin\nENTRYPOINT ["/usr/bin/buildkitd"]\n' >bk/Dockerfile
build() {
  "$BUILDCTL" --addr "$ADDR" build --frontend dockerfile.v0 --local context="$1" --local dockerfile="$1" \
    --output "type=docker,name=$2,dest=$3.new" --progress=plain
  mv "$3.new" "$3"
}
build pause localhost/pause:local "$OUT/pause.tar"
build bk docker.io/moby/buildkit:local "$OUT/buildkit.tar"
rm -rf "$OUT/pause" "$OUT/bk"
`
