#!/usr/bin/env bash
# Installs the Debian packages that the tests and the quickstart need, but only
# those whose programs are missing. With arguments, only for those programs.
#
#   hack/deps.sh [PROGRAM…]
#
# Without root it says what is missing, and fails only where CI=true.
set -euo pipefail

# program:package
all=(
  dockerd:docker.io docker:docker-cli containerd:containerd runc:runc
  docker-registry:docker-registry busybox:busybox-static openssl:openssl
  git:git iptables:iptables ip:iproute2 make:make gcc:gcc ld:binutils
  sshd:openssh-server ssh-keygen:openssh-client
  podman:podman
  chromium:chromium
  pkg-config:pkg-config
)

wanted() { # PROGRAM ARGS…: was it asked for?
  local program=$1 a
  shift
  [ $# -eq 0 ] && return 0
  for a in "$@"; do [ "$a" = "$program" ] && return 0; done
  return 1
}

have() {
  command -v "$1" >/dev/null || return 1
  # A busybox that is linked to libc does not run in an image made FROM scratch.
  [ "$1" != busybox ] || { ldd "$(command -v busybox)" 2>&1 || true; } | grep -q 'not a dynamic'
}

missing=()
for entry in "${all[@]}"; do
  program=${entry%%:*}
  wanted "$program" "$@" || continue
  have "$program" || missing+=("${entry#*:}")
done
if wanted gcc "$@" && [ ! -e /usr/include/stdlib.h ]; then missing+=(libc6-dev); fi
if wanted pkg-config "$@" && [ ! -e /usr/include/seccomp.h ]; then missing+=(libseccomp-dev); fi # runc is built with it
if [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then missing+=(ca-certificates); fi

if [ ${#missing[@]} -eq 0 ]; then
  echo "deps: nothing is missing"
  exit 0
fi
echo "deps: missing: ${missing[*]}"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "deps: needs root and apt-get: apt-get install --no-install-recommends ${missing[*]}" >&2
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi

# The packages' services are not wanted: the tests start their own. Debian asks
# this file before it starts one; one that is there already is the machine's.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Before Debian 13, docker's command line is a part of docker.io.
packages=()
for p in "${missing[@]}"; do
  if [ "$p" = docker-cli ] && ! apt-cache show docker-cli >/dev/null 2>&1; then p=docker.io; fi
  packages+=("$p")
done
apt-get install -y -qq --no-install-recommends "${packages[@]}"
echo "deps: installed ${packages[*]}"
