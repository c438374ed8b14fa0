#!/bin/bash
# Measures vmferry beside the script that people write today, on the same disk in the same run, and prints the tables of
# docs/benchmarks.md. Nothing is asserted: these are figures to read, on a machine that may be busy with something else.
#
#   bench.sh [DATA_MIB] [ROUNDS]      default: 2048 MiB of data, 5 rounds
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
data=${1:-2048} rounds=${2:-5}

"$root/scripts/deps.sh"
[ "$(id -u)" = 0 ] || die "the benchmark reads the disks of its hosts and drops caches: run it as root"
say "building vmferry"
(cd "$root" && cargo build --quiet --release -p vmferry)
vmferry=${CARGO_TARGET_DIR:-$root/target}/release/vmferry

# Short, since paths of sockets must be; on a disk, since tmpfs would measure memory.
work=$(mktemp -d "${BENCH_DIR:-/var/tmp}/vmf.XXXXXX")
chmod 755 "$work"
hosts=()
cleanup() {
    for fd in "${hosts[@]}"; do exec {fd}>&-; done
    for _ in $(seq 100); do [ -e "$work/a" ] || [ -e "$work/b" ] || break; sleep 0.1; done
    rm -rf "$work"
}
trap cleanup EXIT

start_host() { # NAME
    local fd
    exec {fd}> >(exec "$root/scripts/host.sh" session "$work/$1" 2>"$work/$1.err")
    hosts+=("$fd")
    for _ in $(seq 400); do [ -e "$work/$1/ready" ] && return; sleep 0.05; done
    echo "bench.sh: host $1 did not start:" >&2; cat "$work/$1.err" >&2; exit 1
}
uri() { echo "qemu+unix:///session?socket=$work/$1/run/libvirt/libvirt-sock"; }
virsh_a() { virsh -q -c "$(uri a)" "$@"; }
virsh_b() { virsh -q -c "$(uri b)" "$@"; }

# make_disk FILE VIRTUAL_MIB DATA_MIB: a qcow2 with DATA_MIB of incompressible data in stretches over the whole disk.
make_disk() {
    qemu-img create -q -f qcow2 "$1" "$2M"
    local stretches=32 i each=$(($3 / 32)) step=$(($2 / 32))
    local script=() pieces=$work/random
    head -c "$((each * 1024 * 1024))" /dev/urandom >"$pieces"
    for i in $(seq 0 $((stretches - 1))); do
        script+=(-c "write -q -s $pieces $((i * step))M ${each}M")
    done
    qemu-io -f qcow2 -t none "${script[@]}" "$1"
    rm "$pieces"
    chown nobody "$1"
}

define_vm() { # NAME FILE
    virsh_a define /dev/stdin >/dev/null <<XML
<domain type='qemu'><name>$1</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='$2'/><target dev='vda' bus='virtio'/></disk></devices>
</domain>
XML
}

manifests() { # VM FILE
    cat >"$2" <<YAML
apiVersion: infra.virtrigaud.io/v1beta1
kind: Provider
metadata: { name: a }
spec: { type: libvirt, endpoint: "$(uri a)" }
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: Provider
metadata: { name: b }
spec: { type: libvirt, endpoint: "$(uri b)" }
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: VirtualMachine
metadata: { name: $1 }
spec: { providerRef: { name: a } }
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: VMMigration
metadata: { name: $1 }
spec:
  sourceName: $1
  sourceNamespace: default
  targetProviderRef: { name: b }
  targetName: $1
  cleanupPolicy: { deleteIntermediate: false }
  storage: { type: nfs, path: "$work/staging" }
YAML
}

# CPU seconds that the libvirt daemons of our two hosts have used so far: what vmferry makes them do counts as vmferry's.
daemon_cpu() {
    local ticks=0 pid
    for pid in $(pgrep -x libvirtd); do
        grep -qsz "^XDG_RUNTIME_DIR=$work/" "/proc/$pid/environ" || continue
        ticks=$((ticks + $(awk '{ print $14 + $15 }' "/proc/$pid/stat")))
    done
    awk "BEGIN { print $ticks / $(getconf CLK_TCK) }"
}

# measure FILE COMMAND…: appends "wall cpu peak_mib" to FILE.
measure() {
    local out=$1 before after
    shift
    sync
    { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null || true
    before=$(daemon_cpu)
    /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    after=$(daemon_cpu)
    awk -v d="$(awk "BEGIN { print $after - $before }")" '{ printf "%.2f %.2f %.0f\n", $1, $2 + $3 + d, $4 / 1024 }' "$work/time" >>"$out"
}

migrate() { # VM OUT
    rm -rf "$work/state" "$work/staging"; mkdir "$work/staging"
    virsh_b undefine "$1" >/dev/null 2>&1 || true
    rm -f "$work"/b/pool/*; virsh_b pool-refresh default >/dev/null
    measure "$2" "$vmferry" run -f "$work/$1.yaml" --state "$work/state"
}

by_hand() { # FILE OUT
    rm -rf "$work/staging" "$work/tmp" "$work/imported.qcow2"; mkdir "$work/staging" "$work/tmp"
    measure "$2" sh -ec "
        qemu-img convert -f qcow2 -O qcow2 '$1' '$work/tmp/export.qcow2'
        cp '$work/tmp/export.qcow2' '$work/staging/disk.qcow2'
        sha256sum '$work/staging/disk.qcow2'
        qemu-img convert -f qcow2 -O qcow2 '$work/staging/disk.qcow2' '$work/imported.qcow2'"
    rm -rf "$work/tmp" "$work/imported.qcow2"
}

column() { awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { printf "%s (%s–%s)", v[int((NR + 1) / 2)], v[1], v[NR] }'; }
ratio() { paste "$1" "$2" | awk -v c="$3" '{ print $c / $(c + 3) }' | sort -n | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'; }

say "Starting two libvirt hosts"
start_host a; start_host b

say "Making disks: $data MiB of data in 8 GiB; 200 MiB in 1 GiB, 20 GiB and 1 TiB"
make_disk "$work/a/pool/big.qcow2" 8192 "$data"
make_disk "$work/a/pool/g1.qcow2" 1024 200
make_disk "$work/a/pool/g20.qcow2" 20480 200
make_disk "$work/a/pool/t1.qcow2" 1048576 200
virsh_a pool-refresh default
for vm in big g1 g20 t1; do define_vm "$vm" "$work/a/pool/$vm.qcow2"; manifests "$vm" "$work/$vm.yaml"; done

say "Warming up"
migrate g1 "$work/ignored"; by_hand "$work/a/pool/g1.qcow2" "$work/ignored"

say "A migration beside qemu-img convert + cp + sha256sum + qemu-img convert, $rounds rounds in turn"
for _ in $(seq "$rounds"); do
    by_hand "$work/a/pool/big.qcow2" "$work/hand"
    migrate big "$work/ferry"
done
say "Sparse disks, $rounds rounds in turn"
for _ in $(seq "$rounds"); do for vm in g1 g20 t1; do migrate "$vm" "$work/$vm"; done; done

cat <<TABLE

A disk of 8 GiB with $data MiB of data, qcow2 to qcow2, median (min–max) of $rounds rounds:

| | wall s | CPU s | peak MiB |
| --- | --- | --- | --- |
| by hand | $(column "$work/hand" 1) | $(column "$work/hand" 2) | $(column "$work/hand" 3) |
| vmferry run | $(column "$work/ferry" 1) | $(column "$work/ferry" 2) | $(column "$work/ferry" 3) |
| by hand / vmferry, median of pairs | $(ratio "$work/hand" "$work/ferry" 1) | $(ratio "$work/hand" "$work/ferry" 2) | |

200 MiB of data in disks of different sizes:

| disk | wall s | CPU s | peak MiB |
| --- | --- | --- | --- |
| 1 GiB | $(column "$work/g1" 1) | $(column "$work/g1" 2) | $(column "$work/g1" 3) |
| 20 GiB | $(column "$work/g20" 1) | $(column "$work/g20" 2) | $(column "$work/g20" 3) |
| 1 TiB | $(column "$work/t1" 1) | $(column "$work/t1" 2) | $(column "$work/t1" 3) |
| 1 TiB / 1 GiB, median of pairs | $(ratio "$work/t1" "$work/g1" 1) | $(ratio "$work/t1" "$work/g1" 2) | |
TABLE
