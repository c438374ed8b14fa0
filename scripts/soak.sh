#!/bin/sh
# Moves a disk of 64 GiB with 4 GiB of data over each kind of storage and cuts thirty connections on the way, with the release build.
#
#   soak.sh [MIB]      so much data instead
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/deps.sh" nextest stores
cd "$root"
VMFERRY_CUTS_MIB=${1:-4096} VMFERRY_TEST_LIMIT=1500 cargo nextest run --release --profile soak -p vmferry --test e2e 'stores::cuts::'
