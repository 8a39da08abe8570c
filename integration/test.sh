#!/bin/sh
# Runs every test on this machine: installs what is missing, builds, tests, and looks for what was left behind.
#
# usage: integration/test.sh [NEXTEST ARGUMENTS...]     e.g. -p hull-plan, or -E 'binary(podman)'
#
# Ends with 0 only if all tests passed, no test was skipped that allowed-skips.txt does not name, and no mount, cgroup,
# process, network namespace or file of a test is left.
set -eu
cd "$(dirname "$0")/.."
integration/setup.sh
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
integration/prepare.sh
integration/criu.sh

cargo build --quiet --workspace --bins
target=${CARGO_TARGET_DIR:-target}
bin=$target/x86_64-unknown-linux-musl/debug
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HULL_SKIP_LIST="$work/skipped"
: >"$HULL_SKIP_LIST"
"$bin/hull-leftovers" "$work/before"

verdict=0
cargo nextest run --workspace --no-fail-fast --cargo-quiet "$@" || verdict=$?

# Only in a whole run: arguments pick tests of this machine.
[ $# -gt 0 ] || integration/vm/tests || verdict=1

# A name in the list stands for itself; what follows a # is its reason.
sed 's/[[:space:]]*#.*//' integration/allowed-skips.txt | grep -v '^$' | sort -u >"$work/allowed" || true
sort -u "$HULL_SKIP_LIST" >"$work/skips"
unwanted=$(sed 's/: .*//' "$work/skips" | sort -u | comm -23 - "$work/allowed")
echo "skipped: $(wc -l <"$work/skips") tests"
sed 's/^/  /' "$work/skips"
if [ -n "$unwanted" ]; then
  echo "skipped but not allowed by integration/allowed-skips.txt:"
  echo "$unwanted" | sed 's/^/  /'
  verdict=1
fi
"$bin/hull-leftovers" "$work/before" && echo "left behind: nothing" || verdict=1
exit $verdict
