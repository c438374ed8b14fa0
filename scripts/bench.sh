#!/bin/sh
# Measures vmferry beside what people script today; see bench.py, which takes the arguments. Installs and builds what it needs.
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/deps.sh" stores bench kube vsphere
[ "$(id -u)" = 0 ] || die "the benchmark reads the disks of its hosts and drops caches: run it as root"
say "building vmferry"
(cd "$root" && cargo build --quiet --release -p vmferry && cargo build --quiet --release -p vmferry-testkit --examples)
exec python3 -B "$root/scripts/bench.py" "$@"
