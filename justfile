# The front door. `just` lists what there is.

target := "x86_64-unknown-linux-musl"

[private]
default:
    @just --list --unsorted

# install what building and testing need
setup:
    integration/setup.sh --tools

# build the programs, optimised; `hull --version` tells the commit
build:
    HULL_COMMIT=$(git describe --always --dirty --abbrev=12) cargo build --release --workspace --bins

# formatting, lints, dependency rules
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo deny --log-level error check

# every test; arguments go to nextest
test *ARGS:
    integration/test.sh {{ARGS}}

# the tests with real managers and programs
integration *ARGS:
    integration/test.sh -p hull-integration {{ARGS}}

# everything that can run in machines: pure version 2 control groups with and without systemd, systemd on version 1; takes long
suites-vm *ARGS:
    HULL_VM_TIMEOUT=3600 integration/vm/tests --all {{ARGS}}

# the conformance suite against any runtime: just conformance --runtime PATH [--filter ID]
conformance *ARGS:
    cargo build --release -p hull-conformance
    target/{{target}}/release/hull-conformance {{ARGS}}

# write docs/conformance.md from runs of hull, runc, crun and others, here and in machines: [--missing] [here|small|systemd]... [RUNTIME...]
conformance-table *ARGS:
    conformance/table.sh {{ARGS}}

# compare with the installed peers: run, create, start, state, kill, delete, exec
bench *ARGS:
    cargo build --release --bin hull --bin hull-bench --bin hull-probe
    target/{{target}}/release/hull-bench {{ARGS}}

# compare shim and monitor with the installed incumbents; sections: memory thousand life bulk log
bench-shim *ARGS:
    cargo build --release --bin hull --bin hull-probe --bin containerd-shim-hull-v2 --bin hull-monitor
    cargo bench --bench shim -- {{ARGS}}

# build the same Dockerfiles with hull-build and buildah; arguments name cases
bench-builder *ARGS:
    cargo build --release --bin hull --bin hull-build --bin hull-builder-bench
    target/{{target}}/release/hull-builder-bench {{ARGS}}

# build real images from package registries, look at them running, [--buildah] compare; needs the network, is not in CI
real-builds *ARGS:
    cargo build --release --bin hull --bin hull-build --bin hull-monitor
    builder/tests/real/run.sh {{ARGS}}

# the tests that take minutes or hours; SOAK_OUTAGE (s), SOAK_EXECS, SOAK_DEATHS and SOAK_ORPHANS change how long
soak *ARGS:
    cargo build --workspace --bins
    cargo nextest run -p hull-shim -E 'binary(shim_soak)' --run-ignored only --no-capture {{ARGS}}

# kill 200 builds at moments spread over a whole one; each time the next one must give the undisturbed digest
soak-builder KILLS="200":
    cargo build --quiet --bin hull --bin hull-build
    HULL_SOAK={{KILLS}} cargo nextest run -p hull-build --profile soak --test disturbed -E 'test(killed)' --no-capture

# fail the first, second, ... write, sync, rename and open of every thread of a build; the next one must give the undisturbed digest
soak-builder-writes WRITES="120":
    cargo build --quiet --bin hull --bin hull-build
    HULL_SOAK={{WRITES}} cargo nextest run -p hull-build --test disturbed --profile soak -E 'test(no_call)' --no-capture

# sizes of the programs
size:
    cargo build --release --workspace --bins
    @ls -l --block-size=1 $(find target/{{target}}/release -maxdepth 1 -type f -perm -100) | awk '{ printf "%10d  %s\n", $5, $NF }'

# run an example container made from this machine's own files
hello:
    examples/hello/run.sh
