#!/bin/sh
# Runs a command where /sys/fs/cgroup shows version 1 hierarchies only, for peers that refuse the hybrid layout.
# The host's mounts stay as they are: this happens in a private mount namespace. usage: pure-v1.sh COMMAND...
[ "${PURE_V1:-}" = inside ] || PURE_V1=inside exec unshare --mount --propagation private "$0" "$@"
set -eu
unset PURE_V1
view=$(mktemp -d)
mount -t tmpfs -o mode=755 cgroup "$view"
sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \(\/sys\/fs\/cgroup\/[^ ]*\) .* - cgroup .*/\1/p' /proc/self/mountinfo | while read -r hierarchy; do
  mkdir -p "$view/${hierarchy##*/}"
  mount --bind "$hierarchy" "$view/${hierarchy##*/}"
done
umount -R -l /sys/fs/cgroup
mount --move "$view" /sys/fs/cgroup
rmdir "$view"
exec "$@"
