#!/bin/sh
# Builds the parts of Kubernetes that the tests run, kube-apiserver and kube-controller-manager, into a folder.
#
#   kube.sh FOLDER
#
# From Debian 12's source package (1.20), with Debian 12's Go, both unpacked into a folder that is removed afterwards: nothing is
# installed. Takes five minutes of a processor, 800 MB of memory and 2 GB of /var/tmp.
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ $# = 1 ] || die "usage: kube.sh FOLDER"
out=$1
for tool in apt-get dpkg dpkg-source xz; do
    have $tool || die "$tool is missing: put kube-apiserver and kube-controller-manager on PATH instead, from any Kubernetes since 1.20"
done
work=$(mktemp -d /var/tmp/vmferry-kube-XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# apt with lists and a cache of its own, so that the machine's own are not touched.
apt() {
    apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$work/lists" \
        -o "Dir::Cache=$work/cache" -o APT::Sandbox::User= "$@" >"$work/apt.log" 2>&1 || die "apt-get $*: $(cat "$work/apt.log")"
}

unpack_sources() {
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
    for type in deb deb-src; do
        echo "$type [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} bookworm main"
    done >"$work/sources.list"
    apt update
    apt source kubernetes
    apt download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev
    for package in *.deb; do dpkg -x "$package" "$work/root"; done
    mkdir -p "$work/gopath/src/k8s.io"
    mv kubernetes-*/ "$work/gopath/src/k8s.io/kubernetes"
    # The one that Kubernetes brings panics when it is built with this Go.
    rm -r "$work/gopath/src/k8s.io/kubernetes/vendor/github.com/modern-go/reflect2"
    cp -r "$work/root/usr/share/gocode/src/github.com/modern-go/reflect2" "$work/gopath/src/k8s.io/kubernetes/vendor/github.com/modern-go/"
}

# The schemas of all types: generated code that is in no source package.
generate_schemas() {
    go build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
    inputs=$(grep -rlE --include='*.go' '^// *\+k8s:openapi-gen=' pkg staging/src/k8s.io |
        grep -vE '/(code-generator|sample-apiserver)/' | xargs -n 1 dirname | sort -u |
        sed 's#^staging/src/#vendor/#; s#^#k8s.io/kubernetes/#' | paste -sd , -)
    "$work/openapi-gen" --logtostderr -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations" 2>"$work/openapi.log" ||
        die "openapi-gen: $(cat "$work/openapi.log")"
}

# A server that does not know its version is taken for none.
version_flags() {
    for package in component-base client-go/pkg; do
        for set in gitVersion=v1.20.2 gitMajor=1 gitMinor=20; do
            printf -- '-X k8s.io/kubernetes/vendor/k8s.io/%s/version.%s ' "$package" "$set"
        done
    done
}

cd "$work"
unpack_sources
unset GOFLAGS GOROOT
export PATH="$work/root/usr/lib/go-1.19/bin:$PATH" GOPATH="$work/gopath" GOCACHE="$work/gocache" GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0
cd "$work/gopath/src/k8s.io/kubernetes"
generate_schemas
mkdir "$work/built"
# Without the clouds' own providers.
nice -n 10 go build -tags providerless -trimpath -ldflags "-s -w $(version_flags)" -o "$work/built/" \
    k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
mkdir -p "$out"
# Named as they are only once they are whole.
for program in kube-apiserver kube-controller-manager; do
    install -m 755 "$work/built/$program" "$out/.$program.new"
    mv "$out/.$program.new" "$out/$program"
done
