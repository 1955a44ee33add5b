#!/usr/bin/env bash
# Links bin/berth as PREFIX/bin/berth and as docker's buildx plugin, or undoes
# that. A plugin that was there before is kept aside and put back. Both may be
# run any number of times.
#
#   PREFIX=/usr/local hack/install.sh install|uninstall
#
# The plugin goes to $DOCKER_CONFIG, or ~/.docker, below cli-plugins/.
set -euo pipefail
berth=$(cd "$(dirname "$0")/.." && pwd)/bin/berth
prefix=${PREFIX:-/usr/local}
plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
command=$prefix/bin/berth
plugin=$plugins/docker-buildx
kept=$plugin.before-berth

there() { [ -e "$1" ] || [ -L "$1" ]; }

# Ours is a link to a binary named berth, of this clone or of another.
ours() { [ -L "$1" ] && [ "$(basename "$(readlink "$1")")" = berth ]; }

link() { # PATH
  if ours "$1" && [ "$(readlink "$1")" = "$berth" ]; then
    echo "$1 is linked already"
    return
  fi
  mkdir -p "$(dirname "$1")"
  ln -sfn "$berth" "$1"
  echo "linked $1 -> $berth"
}

install() {
  [ -x "$berth" ] || { echo "install: no $berth: run \`make build\`" >&2; exit 1; }
  if there "$command" && ! ours "$command"; then
    echo "install: $command is there and is not berth's: move it away, or set PREFIX" >&2
    exit 1
  fi
  if there "$plugin" && ! ours "$plugin"; then
    if there "$kept"; then
      echo "install: both $plugin and $kept are there and are not berth's: move one away" >&2
      exit 1
    fi
    mv "$plugin" "$kept"
    echo "kept $plugin as $kept"
  fi
  link "$command"
  link "$plugin"
}

uninstall() {
  local path
  for path in "$command" "$plugin"; do
    if ours "$path"; then
      rm "$path"
      echo "removed $path"
    elif there "$path"; then
      echo "left $path alone: it is not berth's"
    fi
  done
  if there "$kept" && ! there "$plugin"; then
    mv "$kept" "$plugin"
    echo "put back $plugin"
  fi
}

case ${1:-} in
  install | uninstall) "$1" ;;
  *) echo "usage: hack/install.sh install|uninstall" >&2; exit 2 ;;
esac
