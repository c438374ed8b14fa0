#!/bin/sh
# The first process of a host that host.sh made: starts its daemons, says when they answer, waits for the end of standard
# input, and with its own end the kernel ends every other process of the host.
set -eu

kind=$1 dir=$2 address=$3

# Runs "$@" until it succeeds, for 20 s at most.
await() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 400 ]; then echo "host.sh: no success in 20 s: $*" >&2; exit 1; fi
        sleep 0.05
    done
}

readlink /proc/self/ns/pid >"$dir/pid-namespace"

start_session() {
    # Who opens a console leaves a lock file here, which outlives a host that is killed and would lock out the next one.
    mount -t tmpfs -o mode=1777 tmpfs "$(realpath /var/lock)"
    as_nobody=
    if [ "$(id -u)" = 0 ]; then as_nobody="setpriv --reuid=nobody --regid=nogroup --clear-groups"; fi
    # shellcheck disable=SC2086 # Words, not one word.
    env -i PATH="$PATH" HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" XDG_CONFIG_HOME="$dir/home" XDG_CACHE_HOME="$dir/home" \
        XDG_DATA_HOME="$dir/home" $as_nobody libvirtd --timeout 0 </dev/null >"$dir/log/libvirtd" 2>&1 &
    await test -S "$dir/run/libvirt/libvirt-sock"
    uri="qemu+unix:///session?socket=$dir/run/libvirt/libvirt-sock"
}

start_system() {
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/libvirt /run/sshd /run/lock
    mount --bind "$dir/run" /run/libvirt
    mount --bind "$dir/etc" /etc/libvirt
    for state in lib cache log; do mount --bind "$dir/var/$state" "/var/$state/libvirt"; done
    mount --bind "$dir/ssh/shadow" /etc/shadow
    mount --bind "$dir/etc/passwd" /etc/passwd
    mount --bind "$dir/etc/group" /etc/group
    "$(command -v sshd)" -f "$dir/ssh/sshd_config" -E "$dir/log/sshd" </dev/null
    libvirtd --config /etc/libvirt/libvirtd.conf --listen --pid-file /run/libvirtd.pid </dev/null >"$dir/log/libvirtd" 2>&1 &
    await test -S "$dir/run/libvirt-sock"
    uri="qemu+unix:///system?socket=$dir/run/libvirt-sock"
    await nc -z "$address" 16509
}

# Whether the daemon answers: its socket is there a moment before it listens.
answers() { virsh -q -c "$uri" uri >/dev/null 2>&1; }

define_pool() {
    await answers
    virsh -q -c "$uri" pool-define-as default dir --target "$dir/pool" >/dev/null
    virsh -q -c "$uri" pool-start default >/dev/null
    virsh -q -c "$uri" pool-autostart default >/dev/null
}

"start_$kind"
define_pool
: >"$dir/ready"
cat >/dev/null
