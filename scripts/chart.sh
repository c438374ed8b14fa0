#!/bin/sh
# Holds the Helm chart against Helm's own SDK, and the committed manifests against the chart. Changes nothing.
#
#   chart.sh                checks
#   chart.sh --write        renders deploy/manifests anew
#   chart.sh --render DIR   renders every set of values into a folder, a file each
set -eu
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Helm's Go SDK in a wheel: no helm binary and no Go are needed. The folder is complete or absent.
sdk="helm-python-sdk==0.2.2"
yaml="PyYAML==6.0.3"
python=${PYTHON:-python3}
tag=$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
packages=$cache/helm/$sdk-$yaml-$tag

fetch() {
    say "fetching Helm's SDK into $cache (once)"
    mkdir -p "$cache/helm"
    unpacked=$(mktemp -d "$cache/helm/new.XXXXXX")
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --target "$unpacked" "$sdk" "$yaml" >&2 ||
        { rm -r "$unpacked"; die "$sdk could not be fetched from PyPI"; }
    # The wheel has the library three times, where links were meant.
    rm "$unpacked"/helm_python/lib/libhelm_c.so.*
    mv -T "$unpacked" "$packages" || rm -r "$unpacked"
}

[ -d "$packages" ] || fetch
PYTHONPATH=$packages PYTHONDONTWRITEBYTECODE=1 exec "$python" "$root/scripts/chart.py" "$@"
