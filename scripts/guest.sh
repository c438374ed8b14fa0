#!/bin/sh
# Makes a small Linux guest: a raw disk image that boots by itself, made without root and without loop devices.
#
#   guest.sh OUT MIB MARKER [NOISE_MIB [agent]]
#   guest.sh --parts                      only downloads what guests are made of
#
# MBR, a FAT partition with syslinux, Debian's cloud kernel and an initramfs, and an ext4 root with busybox. It prints
# `GUEST-BOOT marker=<MARKER> boots=<N> …` on the first serial port when it is up and about once a second thereafter (a
# console may be opened late), writes two ordered counters to files for ever (/data/b never ahead of /data/a), and
# powers off when ACPI tells it to. NOISE_MIB of random data come along in /data/noise. With `agent`, the QEMU guest agent
# runs in it, on the channel org.qemu.guest_agent.0; a freeze takes as many seconds as /run/slow says, where it is there.
#
# The parts are Debian packages, downloaded into the cache and unpacked there, not installed.
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "${1:-}" != --parts ]; then : "${3:?guest.sh OUT MIB MARKER [NOISE_MIB [agent]] | --parts}"; fi
out=$1 size=${2:-} marker=${3:-} noise=${4:-0} agent=${5:-}
parts=$cache/guest/parts agent_parts=$cache/guest/agent

# Names of the modules that a disk, a power button or a channel may need, in the order in which they are loaded.
modules="drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev
    drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci drivers/block/virtio_blk drivers/acpi/button
    drivers/input/evdev drivers/scsi/scsi_common drivers/scsi/scsi_mod drivers/scsi/sd_mod drivers/ata/libata
    drivers/ata/ata_piix drivers/ata/libahci drivers/ata/ahci drivers/scsi/virtio_scsi drivers/char/virtio_console"

# Downloads packages and unpacks them: fetch FOLDER PACKAGE…
fetch() {
    folder=$1
    shift
    # Made under another name and renamed when whole, since two tests may come here at once.
    fresh=$(mktemp -d "$cache/guest/fresh.XXXXXX")
    (cd "$fresh" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$@")
    for package in "$fresh"/*.deb; do dpkg -x "$package" "$fresh"; rm "$package"; done
    mv -T "$fresh" "$folder" 2>/dev/null || rm -rf "$fresh"
}

prepare_to_fetch() {
    have apt-get || die "the Linux guest is made of Debian packages, and there is no apt-get"
    say "downloading $1 for the guest into $cache/guest (once)"
    mkdir -p "$cache/guest"
    [ -n "$(find /var/lib/apt/lists -name '*Packages*' 2>/dev/null | head -n 1)" ] || as_root apt-get -qq update
}

fetch_parts() {
    prepare_to_fetch "a kernel and busybox"
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    fetch "$parts" "$kernel" busybox-static syslinux syslinux-common mtools dosfstools fdisk libfdisk1 libsmartcols1 cpio
}

# The agent and all libraries that it may need.
fetch_agent() {
    prepare_to_fetch "the guest agent"
    # shellcheck disable=SC2046 # Words, not one word.
    fetch "$agent_parts" $(apt-cache depends --recurse --important --no-pre-depends qemu-guest-agent | grep '^[a-z]')
}

make_initramfs() {
    mkdir -p "$work/initramfs/bin" "$work/initramfs/dev" "$work/initramfs/proc" "$work/initramfs/sys" \
        "$work/initramfs/root" "$work/initramfs/modules"
    cp "$parts/bin/busybox" "$work/initramfs/bin/"
    ln -s busybox "$work/initramfs/bin/sh"
    loaded=
    for module in $modules; do
        file=$parts/lib/modules/$kernel_version/kernel/$module.ko
        if [ -f "$file" ]; then
            cp "$file" "$work/initramfs/modules/"
            loaded="$loaded $(basename "$module")"
        fi
    done
    cat >"$work/initramfs/init" <<INIT
#!/bin/sh
b=/bin/busybox
\$b mount -t devtmpfs dev /dev; \$b mount -t proc proc /proc; \$b mount -t sysfs sys /sys
for module in$loaded; do \$b insmod /modules/\$module.ko 2>/dev/null; done
tries=0
until device=\$(\$b findfs LABEL=guestroot 2>/dev/null) || [ \$tries = 200 ]; do tries=\$((tries + 1)); \$b usleep 50000; done
\$b mount -t ext4 "\$device" /root || { echo "GUEST-FAULT no root file system"; exec \$b sh; }
for dir in dev proc sys; do \$b mount -o move /\$dir /root/\$dir; done
exec \$b switch_root /root /sbin/init
INIT
    chmod +x "$work/initramfs/init"
    (cd "$work/initramfs" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$work/initrd.img"
}

make_root() {
    for dir in bin sbin dev proc sys etc/acpi/PWRF data; do mkdir -p "$work/root/$dir"; done
    cp "$parts/bin/busybox" "$work/root/bin/"
    ln -s busybox "$work/root/bin/sh"
    echo "$marker" >"$work/root/etc/marker"
    cat >"$work/root/etc/acpi/PWRF/00000080" <<'POWER'
#!/bin/sh
b=/bin/busybox
$b sync; echo GUEST-POWEROFF >/dev/ttyS0; $b mount -o remount,ro /; $b poweroff -f
POWER
    cat >"$work/root/sbin/init" <<'INIT'
#!/bin/sh
b=/bin/busybox
exec >/dev/ttyS0 2>&1 </dev/ttyS0
boots=$(($($b cat /data/boots 2>/dev/null || echo 0) + 1))
echo "$boots" >/data/boots; $b sync
device=$($b awk '$2 == "/" { print $1 }' /proc/mounts)
greet() { echo "GUEST-BOOT marker=$($b cat /etc/marker) boots=$boots root=$device kernel=$($b uname -r)"; }
$b acpid -d -c /etc/acpi >/dev/null 2>&1 &
[ ! -e /sbin/agent ] || /sbin/agent &
n=$($b cat /data/a 2>/dev/null || echo 0)
while :; do
    [ $((n % 10)) = 0 ] && greet
    n=$((n + 1))
    echo $n >/data/a; $b sync; echo $n >/data/b; $b sync
    $b usleep 50000
done
INIT
    chmod +x "$work/root/sbin/init" "$work/root/etc/acpi/PWRF/00000080"
    [ "$agent" != agent ] || add_agent
    [ "$noise" = 0 ] || head -c "${noise}M" /dev/urandom >"$work/root/data/noise"
}

# Puts the agent into the root, with the libraries that its own loader finds among the parts.
add_agent() {
    libraries=$work/root/lib/x86_64-linux-gnu
    mkdir -p "$work/root/run" "$work/root/lib64" "$libraries"
    loader=$(find "$agent_parts/lib64" "$agent_parts/usr/lib64" -name ld-linux-x86-64.so.2 2>/dev/null | head -n 1)
    cp -L "$loader" "$work/root/lib64/"
    cp "$agent_parts/usr/sbin/qemu-ga" "$work/root/bin/"
    "$loader" --library-path "$agent_parts/lib/x86_64-linux-gnu:$agent_parts/usr/lib/x86_64-linux-gnu" --list \
        "$agent_parts/usr/sbin/qemu-ga" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
        while read -r library; do cp -L "$library" "$libraries/"; done
    cat >"$work/root/sbin/agent" <<'AGENT'
#!/bin/sh
b=/bin/busybox
$b mount -t tmpfs run /run
for port in /sys/class/virtio-ports/*; do
    [ "$($b cat "$port/name")" != org.qemu.guest_agent.0 ] || device=/dev/${port##*/}
done
exec qemu-ga -m virtio-serial -p "$device" -t /run -f /run/qemu-ga.pid -F/sbin/freeze-hook
AGENT
    cat >"$work/root/sbin/freeze-hook" <<'HOOK'
#!/bin/sh
b=/bin/busybox
[ "$1" != freeze ] || [ ! -e /run/slow ] || $b sleep "$($b cat /run/slow)"
HOOK
    chmod +x "$work/root/sbin/agent" "$work/root/sbin/freeze-hook"
}

# Sector 2048: 24 MiB FAT16 with the boot loader; from sector 51200 to the end: ext4.
make_disk() {
    rm -f "$out"
    truncate -s "${size}M" "$out"
    printf 'label: dos\nstart=2048,size=49152,type=e,bootable\nstart=51200,type=83\n' | sfdisk -q "$out"
    # It warns that the image is longer than the file system, as it is meant to be.
    mkfs.vfat -n BOOT -F 16 --offset 2048 "$out" 24576 >/dev/null 2>&1
    cat >"$work/syslinux.cfg" <<'CONF'
SERIAL 0 115200
DEFAULT linux
PROMPT 0
TIMEOUT 1
LABEL linux
 KERNEL vmlinuz
 INITRD initrd.img
 APPEND console=ttyS0,115200 quiet loglevel=3 panic=5 mitigations=off
CONF
    mcopy -i "$out@@1M" "$parts/boot/vmlinuz-$kernel_version" ::vmlinuz
    mcopy -i "$out@@1M" "$work/initrd.img" "$work/syslinux.cfg" ::
    syslinux --install --offset $((2048 * 512)) "$out"
    dd if="$parts/usr/lib/SYSLINUX/mbr.bin" of="$out" bs=440 count=1 conv=notrunc status=none
    mke2fs -q -t ext4 -L guestroot -E "offset=$((51200 * 512)),root_owner=0:0,lazy_itable_init=1" -d "$work/root" \
        "$out" "$((size - 25))M" 2>"$work/mke2fs.log" || die "mke2fs: $(cat "$work/mke2fs.log")"
}

[ -d "$parts" ] || fetch_parts
[ "$out" != --parts ] || exit 0
[ "$agent" != agent ] || [ -d "$agent_parts" ] || fetch_agent
kernel_version=$(ls "$parts/lib/modules")
PATH=$parts/sbin:$parts/usr/sbin:$parts/usr/bin:$parts/bin:$PATH
LD_LIBRARY_PATH=$parts/lib/x86_64-linux-gnu:$parts/usr/lib/x86_64-linux-gnu
MTOOLS_SKIP_CHECK=1
export LD_LIBRARY_PATH MTOOLS_SKIP_CHECK
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
make_initramfs
make_root
make_disk
