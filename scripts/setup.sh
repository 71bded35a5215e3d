#!/bin/sh
# Install what is missing: Debian packages, the virtual environment, the BPF objects, the module for Envoy.
# May be run again at any time.
# Usage: scripts/setup.sh run|dev     run: what the product needs; dev: what its tests need too
set -eu
cd "$(dirname "$0")/.."
mode=${1:-run}

run_packages="bpftool ca-certificates clang curl iproute2 iputils-ping libbpf-dev libbpf1 make openssl python3-bpfcc python3-venv"
dev_packages="chromium chromium-driver iperf3 nftables systemd wrk"

say() { echo "setup: $*" >&2; }

packages=$run_packages
if [ "$mode" = dev ]; then packages="$run_packages $dev_packages"; fi

# Debian packages. Without root and with something missing, name it and go on: replayed traffic needs none of them.
missing=$(for package in $packages; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed$' || echo "$package"
done)
missing=$(echo $missing)
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        say "installing Debian packages: $missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update
        # shellcheck disable=SC2086
        apt-get -qq install -y --no-install-recommends $missing >/dev/null
    else
        say "not root, so these Debian packages stay missing: $missing"
    fi
fi

# The virtual environment sees Debian's python3-bpfcc, which is not on PyPI.
python=/usr/bin/python3
if [ ! -x .venv/bin/python ]; then
    say "making the virtual environment .venv"
    "$python" -m venv --system-site-packages .venv
fi
extras=""
if [ "$mode" = dev ]; then extras="[dev]"; fi
stamp=".venv/.installed-$mode"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    say "installing Python packages"
    .venv/bin/python -m pip install -qq --disable-pip-version-check -e ".$extras"
    touch "$stamp"
fi

# The BPF objects, and what runs inside Envoy. A machine without clang can still replay recordings.
if command -v clang >/dev/null; then
    make --quiet --no-print-directory -C bpf
    make --quiet --no-print-directory -C mesh/envoy/module
else
    say "clang is missing, so the BPF programs and the module for Envoy are not built"
fi
