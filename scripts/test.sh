#!/bin/sh
# Runs all tests. Arguments go to `cargo nextest run`, e.g. a part of a test's name.
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/deps.sh" nextest stores readers proxmox kube vsphere
cd "$root"
if [ "$(id -u)" != 0 ]; then
    say "the tests run as root, by sudo: libvirt hosts in system mode need it"
    # Read by cargo and nextest alike: what starts a test program.
    triple=$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)
    export "CARGO_TARGET_${triple}_RUNNER=sudo -E"
fi
say "running the tests"
# Where nextest puts it, wherever cargo builds.
report=$root/target/nextest/default/junit.xml
rm -f "$report"
outcome=0
cargo nextest run --workspace "$@" || outcome=$?
python3 -B scripts/matrix.py "$report"
[ $outcome = 0 ] || exit $outcome
if [ $# = 0 ]; then
    say "running the examples in the documentation"
    cargo test --workspace --doc --quiet
fi
