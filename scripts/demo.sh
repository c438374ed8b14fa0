#!/bin/sh
# The demo: a running Linux VM moves between two libvirt hosts, and boots on the second.
#
# Installs what is missing, builds vmferry, starts two hosts in system mode (B reached by ssh), makes a small Linux guest that
# runs on A, applies the manifests of examples/demo/, and ends with what the guest says on B's serial console. Everything is
# written to a folder in the cache, and is gone at the end, however it ends.
#
#   demo.sh [BINARY]    with a binary, nothing is installed or built
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

guest_mib=1024
noise_mib=256
marker=ferried-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')

# Starts a host that lives until the write end of its fifo is closed: host NAME ADDRESS.
start_host() {
    mkfifo "$work/$1.lifeline"
    "$root/scripts/host.sh" system "$work/$1" "$2" <"$work/$1.lifeline" >"$work/$1.log" 2>&1 &
}

await_host() {
    tries=0
    until [ -e "$work/$1/ready" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || die "host $1 did not come up in a minute: $(cat "$work/$1.log")"
        sleep 0.1
    done
}

# Runs a command as whoever is logged in at host A would: in A's namespaces, where /run/libvirt is A's own.
on_a() {
    for process in /proc/[0-9]*; do
        if [ "$(readlink "$process/ns/pid" 2>/dev/null)" = "$(cat "$work/a/pid-namespace")" ]; then
            nsenter --mount --pid --target "${process#/proc/}" -- "$@"
            return
        fi
    done
    die "host A has no process"
}

uri() { echo "qemu+unix:///system?socket=$work/$1/run/libvirt-sock"; }

# The first line with TEXT on the serial console of a guest: console HOST GUEST TEXT. `virsh console` wants a terminal, which
# script(1) gives it.
console() {
    rm -f "$work/keyboard"
    mkfifo "$work/keyboard"
    : >"$work/console"
    # Opened for both, so that it neither blocks nor ends.
    timeout 90 script -qfc "virsh -q -c '$(uri "$1")' console --force '$2'" /dev/null <>"$work/keyboard" \
        >"$work/console" 2>/dev/null 8>&- 9>&- &
    listener=$!
    until grep -aq "$3" "$work/console" || ! kill -0 "$listener" 2>/dev/null; do sleep 0.2; done
    kill "$listener" 2>/dev/null || true
    wait "$listener" 2>/dev/null || true
    grep -a -m 1 "$3" "$work/console" | tr -d '\r'
}

# A file with each ${NAME} in it replaced by the variable NAME.
fill() {
    for name in HOST_A_URI HOST_B_URI HOST_B_KEY_BASE64 HOST_B_KNOWN_HOSTS_BASE64 STAGING_PATH GUEST_DISK; do
        # shellcheck disable=SC2016 # The text ${NAME} itself is meant.
        printf 's|${%s}|%s|g\n' "$name" "$(printenv "$name" || true)"
    done | sed -f - "$1"
}

# Ends both hosts with all their processes; each removes its own folder.
clean_up() {
    exec 8>&- 9>&-
    wait
    rm -rf "$work"
}

vmferry=${1:-}
if [ -z "$vmferry" ]; then
    "$root/scripts/deps.sh"
    say "building vmferry"
    (cd "$root" && cargo build --release --quiet -p vmferry)
    vmferry=${CARGO_TARGET_DIR:-$root/target}/release/vmferry
    "$root/scripts/guest.sh" --parts
fi
vmferry=$(realpath "$vmferry")
if [ "$(id -u)" != 0 ]; then
    say "going on as root, which libvirt hosts in system mode need"
    exec sudo env "XDG_CACHE_HOME=${cache%/*}" "$0" "$vmferry"
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/demo.XXXXXX")
TMPDIR=$work
export TMPDIR
trap 'exit 130' HUP INT TERM
trap clean_up EXIT

say "starting two libvirt hosts, A and B, each with its own daemon, storage pool and address"
net=127.$(od -An -N2 -tu1 /dev/urandom | awk '{ print $1 "." $2 }')
start_host a "$net.11"
exec 8>"$work/a.lifeline"
start_host b "$net.12" 8>&-
exec 9>"$work/b.lifeline"
await_host a
await_host b

say "making a Linux guest of $guest_mib MiB with $noise_mib MiB of random data, and booting it on A"
export GUEST_DISK="$work/a/pool/traveller.qcow2"
"$root/scripts/guest.sh" "$work/guest.raw" "$guest_mib" "$marker" "$noise_mib"
qemu-img convert -O qcow2 "$work/guest.raw" "$GUEST_DISK"
rm "$work/guest.raw"
fill "$root/examples/demo/guest.xml" >"$work/guest.xml"
virsh -q -c "$(uri a)" define "$work/guest.xml"
virsh -q -c "$(uri a)" start traveller
echo "on A's console: $(console a traveller "GUEST-BOOT marker=$marker")"

say "moving it, from host A: vmferry run -f examples/demo/ (its placeholders filled in)"
STAGING_PATH=$work/staging
HOST_A_URI=qemu:///system
HOST_B_URI=qemu+ssh://root@$net.12:2222/system
export STAGING_PATH HOST_A_URI HOST_B_URI
mkdir "$work/staging" "$work/manifests"
for manifest in "$root"/examples/demo/*.yaml; do
    (umask 077 && HOST_B_KEY_BASE64=$(base64 -w 0 "$work/b/ssh/id") \
        HOST_B_KNOWN_HOSTS_BASE64=$(base64 -w 0 "$work/b/ssh/known_hosts") fill "$manifest" >"$work/manifests/$(basename "$manifest")")
done
on_a "$vmferry" run -f "$work/manifests" --state "$work/state" --verify readback 8>&- 9>&-

say "arrived"
virsh -q -c "$(uri b)" list --all
arrival=$(console b traveller-arrived "GUEST-BOOT marker=$marker") || die "the guest says nothing on B's serial console"
echo "on B's console: $arrival"
