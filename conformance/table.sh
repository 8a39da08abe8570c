#!/bin/sh
# Writes docs/conformance.md: the suite against the built hull, the runc and crun of this machine, and any other runtime.
#
# usage: conformance/table.sh [RUNTIME...]     newer peers, for instance
#
# A crun on a hybrid layout runs where version 1 alone is seen, because it refuses the other.
set -eu
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/debug
cargo build --quiet -p hull -p hull-conformance --bins
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

number=0
run() { # RUNTIME [WRAPPER]
  number=$((number + 1))
  echo "conformance of $1" >&2
  # Failures are what the table is about.
  ${2:-} "$bin/hull-conformance" --runtime "$1" --format json >"$work/$number.json" || [ $? = 1 ]
}
hybrid=''
[ ! -e /sys/fs/cgroup/unified/cgroup.procs ] || hybrid=integration/pure-v1.sh
run "$bin/hull"
for peer in "$@" "$(command -v runc || true)" "$(command -v crun || true)"; do
  case $peer in
    '') ;;
    *crun*) run "$peer" "$hybrid" ;;
    *) run "$peer" ;;
  esac
done
set --
for at in $(seq "$number"); do set -- "$@" "$work/$at.json"; done
"$bin/hull-conformance" --table "$@" >"$work/table.md"
mv "$work/table.md" docs/conformance.md
