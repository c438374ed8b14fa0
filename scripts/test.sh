#!/bin/sh
# Runs all tests. Arguments go to `cargo nextest run`, e.g. a part of a test's name.
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/deps.sh" nextest
cd "$root"
say "running the tests"
cargo nextest run --workspace "$@"
if [ $# = 0 ]; then
    say "running the examples in the documentation"
    cargo test --workspace --doc --quiet
fi
