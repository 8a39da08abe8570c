#!/bin/sh
# Makes what tests find on the machine, once: the directory of named network namespaces, and the Debian root file system
# of the tests that run real programs (bash, python3, nginx), outside the tree that is committed: target/testkit/debian,
# or below HULL_TEST_CACHE.
set -eu
cd "$(dirname "$0")/.."

# The first network namespace with a name, by ip-netns(8) or podman, makes the directory a mount of its own, for good. If
# that were the tests' own podman, it would count as left behind.
if [ "$(id -u)" = 0 ] && ! mountpoint -q /run/netns; then
  mkdir -p /run/netns
  mount --bind --make-shared /run/netns /run/netns || echo "prepare: /run/netns: tests with networks may count it as left behind"
fi

cache=${HULL_TEST_CACHE:-${CARGO_TARGET_DIR:-target}/testkit}
[ ! -d "$cache/debian" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "prepare: not root: tests with real programs will be skipped"; exit 0; }
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
echo "prepare: making a Debian root file system"
rm -rf --one-file-system "$cache/debian.new"
log=$cache/debootstrap.log
if ! debootstrap --variant=minbase --include=nginx-light,python3-minimal bookworm "$cache/debian.new" >"$log" 2>&1; then
  tail -20 "$log"; exit 1
fi
rm -rf "$cache/debian.new"/var/cache/apt "$cache/debian.new"/var/lib/apt/lists "$cache/debian.new"/usr/share/doc "$cache/debian.new"/dev/*
mv "$cache/debian.new" "$cache/debian"
