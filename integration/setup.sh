#!/bin/sh
# Installs what the tests need on a Debian 12 with a Rust toolchain; what is there already is left alone.
#
# usage: integration/setup.sh [--tools]     --tools: the tools of `just` as well (just, cargo-deny)
set -eu
cd "$(dirname "$0")/.."

packages='buildah busybox-static bzip2 ca-certificates conmon containerd containernetworking-plugins crun curl debootstrap
  docker-registry docker.io git iproute2 iptables musl-tools openssl podman procps python3 runc skopeo strace tmux uidmap
  umoci util-linux xz-utils'
# For the tests in a virtual machine, which are skipped where these cannot be had.
machine='cpio e2fsprogs kmod mmdebstrap qemu-system-x86 xz-utils zstd'

install() { # PACKAGES... that are missing
  missing=''
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  echo "setup: installing$missing"
  export DEBIAN_FRONTEND=noninteractive
  # No daemon of the system is wanted: the tests start their own.
  policy=/usr/sbin/policy-rc.d
  made=''
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=1; }
  log=$(mktemp)
  outcome=0
  { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 || outcome=$?
  [ $outcome = 0 ] || tail -30 "$log"
  rm -f "$log"
  [ -z "$made" ] || rm -f $policy
  return $outcome
}
install $packages
install $machine || echo 'setup: the tests in a virtual machine will be skipped'

tool() { # a cargo tool, built quickly rather than optimised; from /, so that this tree's target does not apply
  command -v "$1" >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/$1" ] || {
    echo "setup: building $1"
    (cd / && CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
      CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo install --quiet --locked "$1")
  }
}
tool cargo-nextest
[ "${1:-}" != --tools ] || { tool just; tool cargo-deny; }
rustup target add x86_64-unknown-linux-musl >/dev/null 2>&1 || rustc --print target-libdir --target x86_64-unknown-linux-musl >/dev/null
