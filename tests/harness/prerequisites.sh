#!/usr/bin/env bash
# prerequisites.sh python|cluster : say what is missing; as root install missing Debian packages.
set -euo pipefail
fail() { echo "cannot go on: $1" >&2; exit 1; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ]; }   # WANTED FOUND

packages() {
  local missing=() name
  for name in "$@"; do dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name"); done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || fail "these Debian packages are missing and installing them needs root: ${missing[*]}"
  echo "installing Debian packages: ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null; } ||
    fail "apt-get could not install: ${missing[*]} (its words are above)"
}

python() {
  packages python3 python3-venv
  local found; found=$(python3 -c 'import platform; print(platform.python_version())')
  at_least 3.11 "$found" || fail "Python 3.11 or newer is needed, python3 is $found"
}

cluster() {
  packages gcc libc6-dev libseccomp-dev pkg-config nftables libnuma1 openssl curl iproute2 binutils util-linux kmod ca-certificates
  command -v go >/dev/null || fail "Go 1.21 or newer is needed and there is no go on PATH; see https://go.dev/dl"
  local found; found=$(go env GOVERSION); found=${found#go}
  at_least 1.21 "$found" || fail "Go 1.21 or newer is needed (it fetches the toolchain it needs itself), go is $found"
  [ "$(go env GOTOOLCHAIN)" != local ] || at_least 1.26 "$found" || fail "the cluster is built with Go 1.26; go is $found and GOTOOLCHAIN=local keeps it from fetching that: unset it"
  [ "$(uname -m)" = x86_64 ] || fail "vLLM's CPU wheels for the test image are x86-64, this machine is $(uname -m)"
  found=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [ "$found" = 3.11 ] || fail "the images take Debian 12's Python 3.11 from /usr/bin/python3, which is $found here"
}
"$1"
