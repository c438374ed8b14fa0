#!/bin/sh
# The first process of a node that node.sh made: starts sshd and waits for the end of standard input. With its own end the kernel ends every
# other process of the node.
set -eu

dir=$1 address=$2 shared=$3 name=$4

echo "$name" >/proc/sys/kernel/hostname
readlink /proc/self/ns/pid >"$dir/pid-namespace"
# /var/tmp of its own, in which the folders that the cluster is in are where they were.
mkdir -p "$dir/tmp"
chmod 1777 "$dir/tmp"
for kept in "$(dirname "$(dirname "$dir")")" "$shared"; do
    case "$kept" in /var/tmp/*)
        mkdir -p "$dir/tmp/${kept#/var/tmp/}"
        mount --bind "$kept" "$dir/tmp/${kept#/var/tmp/}" ;;
    esac
done
mount --rbind "$dir/tmp" /var/tmp
mount -t tmpfs -o mode=755 tmpfs /run
# The node's own list of its tasks, which the double writes.
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p "$dir/tasks" /var/log/pve/tasks
mount --bind "$dir/tasks" /var/log/pve/tasks
mkdir /run/sshd /run/lock /run/qemu-server
mount --bind "$dir/run" /run/qemu-server
mount --bind "$dir/ssh/shadow" /etc/shadow
"$(command -v sshd)" -f "$dir/ssh/sshd_config" -E "$dir/log/sshd" </dev/null
tries=0
until nc -z "$address" 2222; do
    tries=$((tries + 1))
    if [ "$tries" -gt 400 ]; then echo "node.sh: sshd does not answer" >&2; exit 1; fi
    sleep 0.05
done
: >"$dir/ready"
cat >/dev/null
