#!/bin/sh
# Installs the missing packages of the named groups of cmake/debian-packages.txt. Does nothing, and needs neither root nor
# a network, when all of them are there.
#   cmake/install-packages.sh build test
#   cmake/install-packages.sh --list run      prints the names only
set -eu

list="$(dirname "$0")/debian-packages.txt"
mode=install
if [ "${1:-}" = "--list" ]; then
  mode=list
  shift
fi
if [ $# -eq 0 ]; then
  echo "usage: $0 [--list] GROUP...   groups: $(sed -n 's/^\[\(.*\)\]$/\1/p' "$list" | tr '\n' ' ')" >&2
  exit 2
fi

# The package names of one group.
packages_of() {
  grep -q "^\[$1\]$" "$list" || { echo "$0: no group [$1] in $list" >&2; exit 2; }
  sed -n "/^\[$1\]$/,/^\[/p" "$list" | sed -e 's/#.*//' -e '/^\[/d' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]//g'
}

wanted=""
for group in "$@"; do
  names="$(packages_of "$group")" || exit 2
  wanted="$wanted $names"
done
wanted="$(printf '%s\n' $wanted | sort -u)"
if [ "$mode" = list ]; then
  printf '%s\n' $wanted
  exit 0
fi

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "$0: this is not a Debian system; install the equivalents of these yourself, then run 'make' with INSTALL=no:" >&2
  printf '  %s\n' $wanted >&2
  exit 1
fi

missing=""
for package in $wanted; do
  status="$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)"
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing:$missing"
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "$0: not root, and there is no sudo. Run this as root, then try again:" >&2
    echo "  apt-get install --no-install-recommends$missing" >&2
    exit 1
  fi
  as_root="sudo"
fi

apt() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" </dev/null
}
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
install() {
  apt install -y --no-install-recommends $missing >"$log" 2>&1
}
# A fresh machine has no package index, and an old index names files that are gone: refresh it only then.
if ! install; then
  echo "Refreshing the package index"
  if ! { apt update >"$log" 2>&1 && install; }; then
    cat "$log" >&2
    echo "$0: apt-get could not install:$missing" >&2
    echo "Check the network and /etc/apt/sources.list (Debian 12, bookworm, main), then try again." >&2
    exit 1
  fi
fi
