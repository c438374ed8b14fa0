#!/bin/sh
# Makes the root of an image that has one program and what it needs, and nothing else: no shell, no package manager.
#
#   rootfs.sh PROGRAM FOLDER
set -eu

program=$1
root=$2
user=65532

# Copies files to the same places below the root, what links lead to under the links' names.
take() {
    for file in "$@"; do
        mkdir -p "$root${file%/*}"
        cp -L "$file" "$root$file"
    done
}

# The libraries that programs and libraries ask for, the loader included.
libraries() { ldd "$@" | sed -n 's/.*=> *\(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u; }

mkdir -p "$root/usr/bin"
install -m 755 "$program" "$root/usr/bin/vmferry"
# libvirt's client loads these by name when a daemon asks for a password.
mechanisms=$(find /usr/lib/*/sasl2 -name 'libscram.so*' -o -name 'libdigestmd5.so*' -o -name 'libplain.so*')
# shellcheck disable=SC2046,SC2086 # Words, not one word.
take $mechanisms $(libraries "$program" $mechanisms)
take /etc/ssl/certs/ca-certificates.crt

echo "vmferry:x:$user:$user::/tmp:/sbin/nologin" >"$root/etc/passwd"
echo "vmferry:x:$user:" >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# Places for the volumes of the pod.
mkdir -p "$root/run/vmferry" "$root/var/run"
install -d -m 1777 "$root/tmp"
chown "$user:$user" "$root/run/vmferry"
