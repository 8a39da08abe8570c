#!/bin/sh
# Runs a container made from this machine's own files: nothing is downloaded and no image is needed.
#
# The container has its own process, mount, network, IPC, host name and cgroup view, three limits, a seccomp filter and
# three capabilities, and prints what it sees. usage: examples/hello/run.sh [RUNTIME]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "this example needs root: sudo $0"; exit 1; }
runtime=${1:-}
if [ -z "$runtime" ]; then
  cd "$here/../.."
  cargo build --quiet --release --bin hull
  runtime=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/release/hull
fi

bundle=$(mktemp -d)
trap 'rm -rf --one-file-system "$bundle"' EXIT
root=$bundle/rootfs
mkdir -p "$root/bin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"

# The shell and a few tools, each with the libraries it asks for.
for tool in sh cat grep hostname id ls mkdir readlink sed sort tr; do
  path=$(command -v "$tool")
  cp -L "$path" "$root/bin/$tool"
  ldd "$path" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
    [ -e "$root$library" ] || { mkdir -p "$root${library%/*}"; cp -L "$library" "$root$library"; }
  done
done
cp "$here/look.sh" "$root/look.sh"
cp "$here/config.json" "$bundle/config.json"
"$runtime" run --bundle "$bundle" "hello-$$"
