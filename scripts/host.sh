#!/bin/sh
# Runs a libvirt host of its own until standard input is closed, then removes every trace of it.
#
#   host.sh session DIR          unprivileged: qemu+unix:///session?socket=DIR/run/libvirt/libvirt-sock
#   host.sh system  DIR ADDRESS  as root:      qemu+unix:///system?socket=DIR/run/libvirt-sock
#                                              qemu+tcp://ADDRESS/system
#                                              qemu+ssh://root@ADDRESS:2222/system
#
# DIR must not exist; everything that the host writes is below it. DIR/ready appears when the host answers, and
# DIR/log/ has the logs, DIR/pid-namespace the name of its pid namespace. A storage pool `default` in DIR/pool is defined and started.
#
# For ssh, DIR/ssh/ has `id` (a private key that is let in), `stranger` (one that is not), `known_hosts`, `impostor_hosts`
# (a known_hosts with another key) and `password` (root's, on this host only).
#
# All processes live in a pid namespace of their own whose init waits for the end of standard input: closing the pipe, or the
# death of whoever holds its other end, however it dies, kills libvirtd, sshd and all guests at once, and DIR is removed.
# A private mount namespace keeps the machine's own /run/libvirt, /etc/libvirt, /var/lib/libvirt and users out of it.
set -eu

kind=${1:?host.sh session|system DIR [ADDRESS]} dir=${2:?no DIR} address=${3:-}
case $dir in /run/* | [!/]*) echo "host.sh: DIR must be absolute and outside /run: $dir" >&2; exit 2 ;; esac
# The path of a unix socket has at most 107 bytes. In session mode libvirt appends up to 65 to DIR, in system mode 18: its state
# folders are elsewhere.
case $kind in session) limit=40 ;; *) limit=85 ;; esac
if [ "${#dir}" -gt "$limit" ]; then echo "host.sh: DIR is too long for unix sockets below it: $dir" >&2; exit 2; fi
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)

mkdir -m 755 "$dir"
trap 'rm -rf "$dir"' EXIT
trap '' HUP INT TERM
mkdir "$dir/log" "$dir/run" "$dir/pool"

prepare_session() {
    mkdir -p "$dir/home/libvirt"
    # A guest's log without a daemon for it.
    echo 'stdio_handler = "file"' >"$dir/home/libvirt/qemu.conf"
    if [ "$(id -u)" = 0 ]; then chown -R nobody "$dir/run" "$dir/pool" "$dir/home" "$dir/log"; fi
    chmod 700 "$dir/run"
}

prepare_system() {
    : "${address:?host.sh system DIR ADDRESS}"
    mkdir -p "$dir/etc/qemu" "$dir/var/lib" "$dir/var/cache" "$dir/var/log" "$dir/ssh"
    cat >"$dir/etc/libvirtd.conf" <<CONF
unix_sock_dir = "/run/libvirt"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
listen_tls = 0
listen_tcp = 1
listen_addr = "$address"
auth_tcp = "none"
host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
CONF
    # Without systemd, udev and a file system with xattrs: no cgroups, no device namespaces, no remembered owners.
    cat >"$dir/etc/qemu.conf" <<CONF
stdio_handler = "file"
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
CONF
    # Some libvirts insist on a user and a group that only the package `libvirt-daemon-system` makes: known here only.
    with_entry /etc/passwd "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin" >"$dir/etc/passwd"
    with_entry /etc/group "libvirt-qemu:x:64055:" >"$dir/etc/group"
    prepare_ssh
}

# The users or groups of FILE, and one more where its name is not among them: with_entry FILE LINE.
with_entry() {
    cat "$1"
    grep -q "^${2%%:*}:" "$1" || echo "$2"
}

prepare_ssh() {
    mkdir -p "$dir/home"
    for key in host_key id stranger other_host_key; do
        ssh-keygen -q -t ed25519 -N '' -C "$key" -f "$dir/ssh/$key"
    done
    cp "$dir/ssh/id.pub" "$dir/ssh/authorized_keys"
    echo "[$address]:2222 $(cut -d' ' -f1,2 "$dir/ssh/host_key.pub")" >"$dir/ssh/known_hosts"
    echo "[$address]:2222 $(cut -d' ' -f1,2 "$dir/ssh/other_host_key.pub")" >"$dir/ssh/impostor_hosts"
    tr -dc a-z0-9 </dev/urandom | head -c 16 >"$dir/ssh/password"
    (umask 077 && echo "root:$(openssl passwd -6 -stdin <"$dir/ssh/password"):19000:0:99999:7:::" >"$dir/ssh/shadow" &&
        sed '/^root:/d' /etc/shadow >>"$dir/ssh/shadow")
    cat >"$dir/ssh/sshd_config" <<CONF
ListenAddress $address
Port 2222
HostKey $dir/ssh/host_key
AuthorizedKeysFile $dir/ssh/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 100
# A home of its own: what this machine's user has in .bashrc may be slow, or wait for something.
SetEnv HOME=$dir/home
CONF
    # A newer sshd turns away who failed to log in a few times, as the tests do. An older one knows no such option.
    if "$(command -v sshd)" -G -f "$dir/ssh/sshd_config" 2>/dev/null | grep -qi '^persourcepenalties'; then
        echo 'PerSourcePenalties no' >>"$dir/ssh/sshd_config"
    fi
}

"prepare_$kind"
# The outer shell waits and removes; the inner one, host-init.sh, is the init of the host.
unshare --pid --fork --kill-child --mount --mount-proc "$here/host-init.sh" "$kind" "$dir" "$address"
