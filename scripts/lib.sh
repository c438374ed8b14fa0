# shellcheck shell=sh
# What the scripts share: where things are, and how they speak. Sourced, not run.

# The checkout, and the cache for tools and parts of guests that takes long to make anew.
# shellcheck disable=SC2034 # For those who source this.
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vmferry
PATH=$cache/tools/bin:$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin
export PATH

# Says what is being done.
say() { printf '\n==> %s\n' "$*" >&2; }

# Says what is in the way, and ends.
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else die "root is needed for: $*. Run it as root, or install sudo."
    fi
}
