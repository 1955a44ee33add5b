#!/usr/bin/env bash
# Makes what a BuildKit daemon and its clients need for mutual TLS: a CA, a
# certificate for the daemon, and one for clients.
#
#   create-certs.sh DIR NAME…
#
# NAME: a host name or IP address by which clients reach the daemon. Written:
#
#   DIR/daemon/{ca,cert,key}.pem   for buildkitd: --tlscacert --tlscert --tlskey
#   DIR/client/{ca,cert,key}.pem   for berth create: --driver-opt cacert=,cert=,key=
#   DIR/ca-key.pem                 signs more certificates: keep it to yourself
#
# Nothing is overwritten. DAYS sets how long the certificates are valid (365).
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: $0 DIR NAME…" >&2
  exit 2
fi
dir=$1
shift
days=${DAYS:-365}
command -v openssl >/dev/null || { echo "$0: openssl is not installed" >&2; exit 1; }

names=()
for name in "$@"; do
  if [[ ! $name =~ ^[A-Za-z0-9.:*_-]+$ ]]; then
    echo "$0: $name is no host name and no IP address" >&2
    exit 1
  fi
  if [[ $name == *:* || $name =~ ^[0-9.]+$ ]]; then names+=("IP:$name"); else names+=("DNS:$name"); fi
done
san=$(IFS=,; echo "${names[*]}")

for there in "$dir/ca-key.pem" "$dir/daemon" "$dir/client"; do
  if [ -e "$there" ]; then
    echo "$0: $there is there already, and nothing is overwritten" >&2
    exit 1
  fi
done

umask 077 # keys are for their owner alone
mkdir -p "$dir"
# Made beside the final place and moved there at the end: a failure leaves nothing.
work=$(mktemp -d "$dir/.making.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/daemon" "$work/client"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

new_key "$work/ca-key.pem"
cat >"$work/ca.cnf" <<END
[req]
distinguished_name = dn
x509_extensions = ca
prompt = no
[dn]
CN = BuildKit CA
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
openssl req -x509 -new -sha256 -days "$days" -config "$work/ca.cnf" \
  -key "$work/ca-key.pem" -out "$work/ca.pem"

# issue FOLDER SUBJECT USAGE [SAN]: a key and a certificate that the CA signed.
issue() {
  local out=$work/$1
  {
    echo "basicConstraints = critical, CA:FALSE"
    echo "keyUsage = critical, digitalSignature"
    echo "extendedKeyUsage = $3"
    echo "authorityKeyIdentifier = keyid"
    if [ -n "${4:-}" ]; then echo "subjectAltName = $4"; fi
  } >"$work/ext.cnf"
  new_key "$out/key.pem"
  openssl req -new -sha256 -key "$out/key.pem" -subj "/CN=$2" -out "$work/request.pem"
  openssl x509 -req -sha256 -days "$days" -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca-key.pem" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/ext.cnf" -out "$out/cert.pem" 2>/dev/null
  cp "$work/ca.pem" "$out/ca.pem"
  openssl verify -CAfile "$work/ca.pem" "$out/cert.pem" >/dev/null
  chmod 644 "$out/ca.pem" "$out/cert.pem"
}

issue daemon "$(cut -c1-64 <<<"$1")" serverAuth "$san"
issue client "BuildKit client" clientAuth

mv "$work/daemon" "$work/client" "$work/ca-key.pem" "$dir/"
echo "made $dir/daemon and $dir/client, for $*, valid for $days days"
