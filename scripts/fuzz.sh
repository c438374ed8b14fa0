#!/bin/sh
# Fuzzes the parsers: scripts/fuzz.sh [SECONDS] [TARGET…]
#
# Each target (default: all) runs for SECONDS (default 300), from fuzz/seeds and from what earlier runs found in fuzz/corpus. Says at the end
# what was found; the inputs are in fuzz/artifacts/<target>/. Exit 0: nothing was found.
#
# Needs the nightly toolchain and cargo-fuzz; installs the latter into ~/.cache/vmferry/tools. Without a sanitizer: the parsers have no unsafe code,
# and the limits below are libFuzzer's own. FUZZ_JOBS targets run at a time (default 2).
set -eu
cd "$(dirname "$0")/../fuzz"

seconds=300
case ${1-} in
'' | *[!0-9]*) ;;
*) seconds=$1 && shift ;;
esac

tools=${XDG_CACHE_HOME:-$HOME/.cache}/vmferry/tools
export PATH="$tools/bin:$PATH" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/vmferry/fuzz}"
rustup run nightly rustc --version > /dev/null 2>&1 || {
    echo "fuzz.sh: no nightly toolchain: rustup toolchain install nightly" >&2
    exit 2
}
command -v cargo-fuzz > /dev/null || cargo install --quiet cargo-fuzz --locked --root "$tools"

# shellcheck disable=SC2046 # A word for each target.
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | tail -n +2)
nice -n 15 cargo +nightly fuzz build --sanitizer none --target-dir "$CARGO_TARGET_DIR"

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
run() {
    mkdir -p "corpus/$1" "artifacts/$1"
    status=0
    nice -n 15 cargo +nightly fuzz run --sanitizer none --target-dir "$CARGO_TARGET_DIR" "$1" "corpus/$1" "seeds/$1" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=300000 -print_final_stats=1 > "$logs/$1" 2>&1 || status=$?
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$1")
    covered=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$logs/$1" | tail -n 1)
    memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$logs/$1")
    if [ "$status" = 0 ]; then
        echo "$1: nothing found in $seconds s: ${executed:-?} runs, ${covered:-?} edges, at most ${memory:-?} MiB"
        return
    fi
    touch "$logs/found"
    echo "$1: FOUND"
    grep -E -A 3 'panicked at|ERROR: libFuzzer|^error' "$logs/$1" | head -n 20 || true
    grep -E '^Test unit written' "$logs/$1" || tail -n 5 "$logs/$1"
}

jobs=${FUZZ_JOBS:-2}
running=0
for target in "$@"; do
    run "$target" &
    running=$((running + 1))
    if [ "$running" -ge "$jobs" ]; then
        wait
        running=0
    fi
done
wait
[ ! -e "$logs/found" ]
