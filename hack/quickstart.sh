#!/usr/bin/env bash
# What `make quickstart` does after it built bin/berth: a BuildKit daemon on a
# loopback port with mutual TLS, a builder for it, and examples/hello built on
# it and run. Run again, it uses what is there.
#
#   hack/quickstart.sh         as root, on Debian, with Go
#   hack/quickstart.sh clean   ends the daemon, removes the builder and the files
#
# BERTH_QUICKSTART_DIR is where the daemon's files lie
# (~/.local/share/berth-quickstart). The builder is added to your own builders,
# or to those in BUILDX_CONFIG, under the name berth-quickstart.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${BERTH_QUICKSTART_DIR:-$HOME/.local/share/berth-quickstart}
cache=${BERTH_CACHE:-$HOME/.cache/berth}
berth=$root/bin/berth
builder=berth-quickstart
image=berth-quickstart/hello:latest
context=$root/examples/hello

step() { printf '\n==> %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
show() { printf '$ berth %s\n' "$*"; "$berth" "$@"; }

# The pid of the daemon, when it is ours and runs: a pid file may be old, and
# its number another process's by now.
daemon_pid() {
  local pid
  pid=$(cat "$dir/buildkitd.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "--root $dir/root" || return 1
  echo "$pid"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000)) # below the range that the kernel gives to clients
    listens "$port" || { echo "$port"; return; }
  done
}

start_daemon() {
  local port pid i
  if pid=$(daemon_pid); then
    echo "the daemon runs already (pid $pid, tcp://127.0.0.1:$(cat "$dir/port"))"
    return
  fi
  mkdir -p "$dir"
  # The port stays the builder's as long as nobody else took it meanwhile.
  port=$(cat "$dir/port" 2>/dev/null || true)
  if [ -z "$port" ] || listens "$port"; then port=$(free_port); fi
  echo "$port" >"$dir/port"
  if [ ! -d "$dir/certs" ]; then
    "$root/examples/tls/create-certs.sh" "$dir/certs" localhost 127.0.0.1
  fi
  : >"$dir/buildkitd.toml"
  setsid nohup "$cache/bin/buildkitd" --config "$dir/buildkitd.toml" --root "$dir/root" \
    --addr "tcp://127.0.0.1:$port" --otel-socket-path "$dir/otel.sock" --containerd-worker=false \
    --tlscacert "$dir/certs/daemon/ca.pem" --tlscert "$dir/certs/daemon/cert.pem" --tlskey "$dir/certs/daemon/key.pem" \
    </dev/null >"$dir/buildkitd.log" 2>&1 &
  pid=$!
  echo "$pid" >"$dir/buildkitd.pid"
  for ((i = 0; i < 300; i++)); do
    listens "$port" && break
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$dir/buildkitd.log" >&2; fail "the daemon ended at once; its log is $dir/buildkitd.log"; }
    sleep 0.1
  done
  listens "$port" || fail "the daemon does not listen after 30 s; its log is $dir/buildkitd.log"
  echo "started buildkitd (pid $pid, tcp://127.0.0.1:$port)"
}

add_builder() {
  local endpoint has
  endpoint=tcp://127.0.0.1:$(cat "$dir/port")
  has=$("$berth" inspect "$builder" 2>/dev/null || true)
  if grep -qF "$endpoint" <<<"$has" && grep -qF "$dir/certs/client/ca.pem" <<<"$has"; then
    echo "the builder $builder is there already"
    return
  fi
  if [ -n "$has" ]; then "$berth" rm "$builder"; fi
  show create --name "$builder" --driver remote \
    --driver-opt "cacert=$dir/certs/client/ca.pem,cert=$dir/certs/client/cert.pem,key=$dir/certs/client/key.pem" "$endpoint"
}

engine() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }

build_and_run() {
  if engine; then
    echo "a Docker engine answers: the image is loaded into it"
    show build --builder "$builder" -t "$image" --load "$context"
    printf '\n$ docker run --rm --network none %s\n' "$image"
    docker run --rm --network none "$image"
    return
  fi
  echo "no Docker engine answers: the image's files are written to a folder"
  rm -rf "$dir/out"
  show build --builder "$builder" -o "$dir/out" "$context"
  printf '\n$ %s\n' "$dir/out/hello"
  "$dir/out/hello"
  printf 'The RUN step left: '
  cat "$dir/out/note.txt"
}

up() {
  command -v go >/dev/null || fail "needs Go on PATH"
  [ "$(id -u)" -eq 0 ] || fail "needs root: the daemon runs containers"
  [ -x "$berth" ] && [ -x "$context/hello" ] || fail "run \`make quickstart\`, which builds berth first"
  step "Programs: what is missing is installed or built"
  "$root/hack/deps.sh" runc openssl
  "$root/hack/tools.sh" buildkitd
  step "A BuildKit daemon with mutual TLS on loopback"
  start_daemon
  step "A builder for it"
  add_builder
  show ls
  step "examples/hello, built on it"
  build_and_run
  cat <<END

==> Done in $SECONDS s
The daemon's files, certificates and log: $dir
Build something of your own on it:       $berth build --builder $builder -o OUT DIR
Clean up (daemon, builder, files):       make quickstart-clean
END
}

clean() {
  local pid i
  if pid=$(daemon_pid); then
    kill "$pid"
    for ((i = 0; i < 150; i++)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
    echo "ended the daemon (pid $pid)"
  fi
  if [ -x "$berth" ] && "$berth" inspect "$builder" >/dev/null 2>&1; then "$berth" rm "$builder"; fi
  if engine && docker image inspect "$image" >/dev/null 2>&1; then docker image rm "$image"; fi
  awk -v d="$dir/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do umount -l "$point"; done
  # Only what quickstart made: the folder may have been there before.
  rm -rf "$dir"/{root,certs,out,buildkitd.pid,buildkitd.log,buildkitd.toml,port,otel.sock}
  if [ -d "$dir" ]; then rmdir "$dir" 2>/dev/null || echo "left $dir: it has other files"; fi
}

case ${1:-} in
  "") up ;;
  clean) clean ;;
  *) echo "usage: hack/quickstart.sh [clean]" >&2; exit 2 ;;
esac
