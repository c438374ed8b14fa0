#!/bin/sh
# Checks formatting, clippy, dependencies, the Helm chart and shell scripts. Changes nothing.
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/deps.sh" deny chart
cd "$root"

say "formatting"
cargo fmt --all -- --check

say "clippy"
cargo clippy --quiet --workspace --all-targets -- -D warnings

say "dependencies: bans, licences, sources"
cargo deny --log-level error check bans licenses sources

say "dependencies: advisories"
# Only this check needs the network, and only it may be skipped.
if cargo deny --log-level error fetch db; then
    cargo deny --log-level error check advisories
else
    echo "skipped: the advisory database could not be fetched" >&2
fi

say "the chart and its manifests"
scripts/chart.sh

say "shell scripts"
if have shellcheck; then
    shellcheck -x scripts/*.sh crates/testkit/src/proxmox/node/*.sh deploy/image/*.sh .ci/run
else
    echo "skipped: shellcheck is not installed" >&2
fi
