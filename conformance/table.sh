#!/bin/sh
# Writes docs/conformance.md: the suite against the built hull, the runc and crun of this machine, and any other runtime;
# here, in a machine of pure version 2 control groups, and in one with systemd (integration/vm/machine).
#
# usage: conformance/table.sh [--missing] [here|small|systemd]... [RUNTIME...]
#
# Without the name of a host, on all three. What is known of the others is kept in target/conformance from the last time:
# emulated machines take a quarter of an hour for each runtime. --missing runs only what is not known yet. Runtimes (newer
# peers, for instance) are full paths; their order is that of the columns, and has to stay that of the last time. What they
# need beside the system's files, HULL_VM_SHARE names for the machines.
set -eu
cd "$(dirname "$0")/.."
bin=target/x86_64-unknown-linux-musl/debug
cargo build --quiet -p hull -p hull-conformance --bins
documents=target/conformance
mkdir -p $documents

hosts='' missing=''
while :; do
  case ${1:-} in
    --missing) missing=yes && shift ;;
    here | small | systemd) hosts="$hosts $1" && shift ;;
    *) break ;;
  esac
done
# The distribution's are at the same paths in the machines.
set -- "$bin/hull" "$@" $(command -v runc || true) $(command -v crun || true)

known() { # DOCUMENT: nothing to be run for it
  [ -n "$missing" ] && [ -e "$1" ]
}

layouts='hybrid v1'
[ -e /sys/fs/cgroup/unified/cgroup.procs ] || layouts=as-it-is
here() { # RUNTIME...: on each layout that this host can show and the runtime takes
  number=0
  for runtime in "$@"; do
    number=$((number + 1))
    for layout in $layouts; do
      case $layout-$runtime in
        # Refuses a hybrid one.
        hybrid-*crun*) continue ;;
        # Is on the other already; the two differ little, and hull is shown on both.
        v1-*runc-* | v1-*/runc) continue ;;
        v1-*) wrapper=integration/pure-v1.sh ;;
        *) wrapper='' ;;
      esac
      known "$documents/$number-a-$layout.json" && continue
      echo "conformance of $runtime ($layout)" >&2
      # Failures are what the table is about.
      $wrapper "$bin/hull-conformance" --runtime "$runtime" --format json >"$documents/new" || [ $? = 1 ]
      mv "$documents/new" "$documents/$number-a-$layout.json"
    done
  done
}

machine() { # small|systemd RUNTIME...: a machine for each, so that one that dies takes no other's results along
  init=$1
  shift
  number=0
  for runtime in "$@"; do
    number=$((number + 1))
    known "$documents/$number-b-$init.json" && continue
    echo "conformance of $runtime in the machine with process 1: $init" >&2
    rm -rf "$documents/$init"
    mkdir -p "$documents/$init"
    HULL_VM_TIMEOUT=${HULL_VM_TIMEOUT:-3600} HULL_VM_OUT=$documents/$init integration/vm/machine "$init" \
      integration/vm/suite "$init" "$bin/hull-conformance" "$runtime" >&2
    mv "$documents/$init/document.json" "$documents/$number-b-$init.json"
  done
}

for host in ${hosts:-here small systemd}; do
  case $host in
    here) here "$@" ;;
    *) machine "$host" "$@" ;;
  esac
done
"$bin/hull-conformance" --table "$documents"/*.json >"$documents/new"
mv "$documents/new" docs/conformance.md
