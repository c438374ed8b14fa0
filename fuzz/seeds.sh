#!/bin/sh
# Makes fuzz/seeds/<target>/: small, sound inputs of every kind, from which the fuzzer starts. Run again when a format learns
# something. Needs qemu-img, qemu-io and python3.
set -eu
cd "$(dirname "$0")"
seeds=$PWD/seeds
rm -rf "$seeds"
for target in qcow2 vmdk vmdk_descriptor vmdk_stream nbd journal manifests names libvirt_xml soap proxmox_config; do
    mkdir -p "$seeds/$target"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# A disk of 300 KiB and a sector: text, noise and holes.
python3 - <<'P'
import random
random.seed(1)
with open("disk.raw", "wb") as disk:
    disk.write(b"vmferry " * 512)
    disk.seek(70000); disk.write(random.randbytes(3000))
    disk.seek(200192); disk.write(b"z" * 2000)
    disk.truncate(300 * 1024 + 512)
P

qcow2() { # name, options, and more for qemu-img convert
    name=$1; options=$2; shift 2
    qemu-img convert -f raw -O qcow2 -o "$options" "$@" disk.raw "$seeds/qcow2/$name"
}
qcow2 v3 cluster_size=512
qcow2 v2 cluster_size=4k,compat=0.10
qcow2 deflate cluster_size=4k -c
qcow2 zstd cluster_size=4k,compression_type=zstd -c
qcow2 extended cluster_size=16k,extended_l2=on
qcow2 wide cluster_size=512,refcount_bits=64
qemu-img create -q -f qcow2 -o cluster_size=512,backing_file=base,backing_fmt=raw "$seeds/qcow2/backed" 64k -u
qemu-img create -q -f qcow2 -o cluster_size=512,backing_file=base,backing_fmt=qcow2 "$seeds/qcow2/loop" 64k -u
qemu-img create -q -f qcow2 -o cluster_size=512,lazy_refcounts=on "$seeds/qcow2/zeros" 64k
qemu-io -f qcow2 -c "write -z 0 4k" -c "write -z -u 8k 4k" "$seeds/qcow2/zeros" > /dev/null
qemu-img snapshot -c one "$seeds/qcow2/zeros"
qemu-img bitmap --add -f qcow2 "$seeds/qcow2/v3" bits

vmdk() { # name, options
    qemu-img convert -f raw -O vmdk -o "$2" disk.raw "$1"
}
vmdk stream subformat=streamOptimized
vmdk sparse subformat=monolithicSparse,zeroed_grain=on
vmdk split subformat=twoGbMaxExtentSparse
vmdk flat subformat=monolithicFlat
vmdk splitflat subformat=twoGbMaxExtentFlat
cp stream sparse split flat splitflat "$seeds/vmdk/"
for name in split flat splitflat; do
    tail -n +2 "$name" > "$seeds/vmdk_descriptor/$name"
done
for name in stream sparse; do
    dd if="$name" bs=512 skip=1 count=20 status=none | tr -d '\000' | tail -n +2 > "$seeds/vmdk_descriptor/$name"
done
cat > "$seeds/vmdk_descriptor/delta" <<'D'
version=1
CID=12345678
parentCID=87654321
parentFileNameHint="base.vmdk"
createType="monolithicSparse"
RW 601 SPARSE "delta-s001.vmdk"
RDONLY 8 ZERO
NOACCESS 8 VMFS "x" 128
D

# Streams: by QEMU, and with the tables after their grains as VMware writes them; the first byte is the size of the bites.
python3 - "$seeds" <<'P'
import struct, sys, zlib
seeds = sys.argv[1]
pad = lambda b: b + bytes(-len(b) % 512)
def header(gd):
    return struct.pack("<IIIQQQQIQQQB4sH433s", 0x564d444b, 3, 0x30001, 601, 128, 1, 20, 512, 0, gd, 21, 0, b"\n \r\n", 1, b"")
def stream(order, footer=True, end=True):
    out = header(2**64 - 1) + b"# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\nRW 601 SPARSE \"x\"\nddb.adapterType = \"ide\"\n".ljust(20 * 512, b"\0")
    table = [0] * 512
    for grain in order:
        z = zlib.compress(bytes([grain + 1]) * 65536)
        table[grain] = len(out) // 512
        out += pad(struct.pack("<QI", grain * 128, len(z)) + z)
    out += pad(struct.pack("<QII", 4, 0, 1))
    gt = len(out) // 512
    out += struct.pack("<512I", *table) + pad(struct.pack("<QII", 1, 0, 2))
    gd = len(out) // 512
    out += pad(struct.pack("<I", gt))
    if footer: out += pad(struct.pack("<QII", 1, 0, 3)) + header(gd)
    if end: out += bytes(512)
    return out
made = {"ordered": stream([0, 1, 4]), "shuffled": stream([4, 0, 2]), "noend": stream([1], end=False), "nofooter": stream([0], footer=False)}
for name, data in made.items():
    open(f"{seeds}/vmdk_stream/{name}", "wb").write(b"\0" + data)
    open(f"{seeds}/vmdk/{name}", "wb").write(data)
open(f"{seeds}/vmdk_stream/qemu", "wb").write(b"\x05" + open("stream", "rb").read())
P

# NBD: the first byte says whether a handshake comes before.
python3 - "$seeds/nbd" <<'P'
import struct, sys
def put(name, data): open(f"{sys.argv[1]}/{name}", "wb").write(data)
def reply(option, kind, data=b""): return struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data
def chunk(flags, kind, cookie, data=b""): return struct.pack(">IHHQI", 0x668e33ef, flags, kind, cookie, len(data)) + data
info = lambda size: reply(7, 3, struct.pack(">HQH", 0, size, 1))
block = reply(7, 3, struct.pack(">HIII", 3, 1, 4096, 1 << 25))
greeting = b"NBDMAGICIHAVEOPT\0\x03"
contexts = reply(10, 4, b"\0\0\0\x07base:allocation") + reply(10, 1)
put("handshake", b"\0" + greeting + reply(8, 1) + contexts + info(1 << 20) + block + reply(7, 1))
put("handshake-simple", b"\0" + greeting + reply(8, 1 << 31 | 1, b"no") + info(512) + reply(7, 1))
put("handshake-refused", b"\0" + greeting + reply(8, 1) + contexts + reply(7, 1 << 31 | 6, b"unknown"))
status = struct.pack(">IIIII", 7, 4096, 0, 1 << 20, 3)
put("structured", b"\x01" + chunk(1, 1, 0, struct.pack(">Q", 16) + b"12345678") + chunk(1, 5, 1, status))
put("pieces", b"\x01" + chunk(0, 2, 0, struct.pack(">QI", 20, 4)) + chunk(0, 1, 0, struct.pack(">Q", 16) + b"1234") + chunk(1, 0, 0))
put("error", b"\x01" + chunk(1, 32769, 0, struct.pack(">IH", 5, 3) + b"bad"))
put("simple", b"\x02" + struct.pack(">IIQ", 0x67446698, 0, 0) + b"12345678")
put("simple-error", b"\x02" + struct.pack(">IIQ", 0x67446698, 5, 0))
P

# Short texts.
text() { # target, name, text
    printf '%s' "$3" > "$seeds/$1/$2"
}
text names duration 1h2m3.5s
text names small 300ms
text names rate 100Mi
text names rate-bits 250MB/s
text names key databases/mysql-primary/disk-0.qcow2
text names digest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
text names options vers=4.1,rw,sync,port=2049,mountport=20048,uid=0,gid=0
text names hosts '*.example.com,10.0.0.0/8,[fd00::]/8,minio'
text names format qcow2
text journal part '{"number":1,"tag":"\"abc\""}'
text journal upload '"2~abc"'
text journal object '{"len":0,"state":"AAAA","tail":""}'
text journal content '{"capacity":1048576,"position":0,"leaves":[]}'
text journal writer '{"fingerprint":"streamOptimized/1 1048576 lsilogic deflate-abadbd36","capacity":1048576,"adapter":"lsilogic","stage":"Started","len":65536,"next":0,"current":0,"directory":"","table":""}'
text journal reader '{"at":11776,"head":{"capacity":601,"grain":128,"adapter":null,"expected":null},"progress":{"grains":1,"next":128,"disorder":false,"directory":false,"footer":false,"end":false}}'
cp "$OLDPWD"/../crates/api/tests/manifests/* "$seeds/manifests/"

cat > "$seeds/libvirt_xml/domain" <<'D'
<domain type='kvm' id='3'><name>web</name><uuid>1b4e28ba-2fa1-11d2-883f-0016d3cca427</uuid>
<metadata><m:migration xmlns:m="https://vmferry.dev/ns/1" uid="u"/></metadata>
<memory unit='KiB'>1048576</memory><vcpu placement='static' current='1'>2</vcpu>
<os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader secure='yes' type='pflash'>/x</loader><boot dev='hd'/></os>
<cpu mode='host-passthrough'><topology sockets='1' dies='1' cores='2' threads='1'/></cpu>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='/a &amp; b.qcow2' index='1'/>
<backingStore type='file'><format type='raw'/><source file='/base'/><backingStore/></backingStore>
<target dev='vda' bus='virtio'/><serial>s</serial><boot order='1'/></disk>
<disk type='volume' device='cdrom'><source pool='p' volume='v'/><target dev='sda' bus='sata'/><readonly/></disk>
<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default' bridge='virbr0'/><model type='virtio'/></interface>
<interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel></devices></domain>
D
cat > "$seeds/libvirt_xml/pool" <<'D'
<pool type='dir'><name>p</name><capacity unit='bytes'>10</capacity><target><path>/p</path></target></pool>
D
cat > "$seeds/libvirt_xml/volume" <<'D'
<volume type='file'><name>v</name><capacity unit='bytes'>10</capacity><target><path>/p/v</path><format type='qcow2'/></target><backingStore><path>/b</path><format type='raw'/></backingStore></volume>
D
cat > "$seeds/libvirt_xml/capabilities" <<'D'
<domainCapabilities><path>/usr/bin/qemu-system-x86_64</path><domain>kvm</domain><machine>pc-q35-7.2</machine><arch>x86_64</arch><vcpu max='288'/><os supported='yes'><enum name='firmware'><value>efi</value></enum><loader supported='yes'><value>/a</value><enum name='secure'><value>yes</value></enum></loader></os></domainCapabilities>
D

# Answers of the kinds that the tests know.
for kind in vcenter-6.7 vcenter-7.0 vcenter-8.0 esxi; do
    for answer in RetrieveServiceContent RetrievePropertiesEx-VirtualMachine WaitForUpdatesEx Destroy_Task HttpNfcLeaseGetManifest; do
        cp "$OLDPWD/../crates/provider/tests/transcripts/$kind/$answer.xml" "$seeds/soap/$kind-$answer"
    done
done
cat > "$seeds/proxmox_config/web" <<'D'
agent: enabled=1,fstrim_cloned_disks=1
bios: ovmf
boot: order=scsi0;ide2;net0
cores: 4
cpu: host,flags=+aes
description: made by hand
efidisk0: local-lvm:vm-100-disk-1,efitype=4m,pre-enrolled-keys=1,size=4M
ide2: local:iso/debian.iso,media=cdrom,size=600M
ide3: local-lvm:vm-100-cloudinit,media=cdrom
machine: pc-q35-8.1
memory: 2048
name: web
net0: virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=5
net1: e1000=BC:24:11:00:00:02,bridge=vmbr1
numa: 0
ostype: l26
scsi0: local-lvm:vm-100-disk-0,discard=on,iothread=1,serial=abc,size=32G
scsi1: local:100/vm-100-disk-2.qcow2,size=10G
scsihw: virtio-scsi-single
sockets: 2
tags: prod;web
tpmstate0: local-lvm:vm-100-disk-3,size=4M,version=v2.0
unused0: local-lvm:vm-100-disk-9
D
cat > "$seeds/proxmox_config/legacy" <<'D'
boot: cdn
bootdisk: virtio0
virtio0: local:100/vm-100-disk-0.qcow2,size=8G
ide2: none,media=cdrom
net0: model=e1000,macaddr=AA:BB:CC:DD:EE:FF,bridge=vmbr0
memory: current=512
lock: backup
D
du -sh "$seeds"
