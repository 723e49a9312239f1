#!/usr/bin/env bash
# Prepare what the checks and the demo need: `prepare.sh venv` the Python packages, `prepare.sh system` the Debian packages.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '%s\n' "$*" >&2
    exit 2
}

# Install the Debian packages named, as root; otherwise say what is missing and what to type.
install_debian_packages() {
    [ "$(id -u)" -eq 0 ] || fail "missing Debian packages: $*. Run: sudo apt-get install $*"
    # The panel's own fonts and drivers are enough; recommended packages would triple the download.
    apt-get -q update || fail "the list of Debian packages could not be fetched: check the network, then run make again"
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" ||
        fail "these Debian packages could not be installed: $*. Install them by hand, then run make again"
}

prepare_system() {
    local packages missing
    if ! command -v dpkg-query >/dev/null; then
        echo "not a Debian system: the libraries of Testing/*/debian-packages.txt are taken to be installed"
        return
    fi
    packages=$(sed -E 's/#.*//; s/[[:space:]]+//g; /^$/d' Testing/*/debian-packages.txt | sort -u)
    # dpkg-query fails where a name is unknown to it, and still prints the others.
    missing=$(comm -23 <(echo "$packages") <(installed_of $packages | sort -u))
    # shellcheck disable=SC2086 # one word a package
    [ -z "$missing" ] || install_debian_packages $missing
}

installed_of() {
    dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | sed -n 's/ installed$//p' || true
}

find_python() {
    python3.11 -c 'import ensurepip, venv' 2>/dev/null && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        install_debian_packages python3.11 python3.11-venv
    else
        fail "Python 3.11 with its venv module is missing: install it (Debian 12: sudo apt-get install python3.11-venv)" \
            "so that python3.11 is on the PATH, then run make again"
    fi
}

prepare_venv() {
    [ ! -L .venv ] || fail ".venv is a symbolic link, and preparing it would change the environment of another" \
        "checkout: remove the link, then run make again"
    find_python
    # An interrupted installation leaves half-written packages that pip takes for whole ones: start anew.
    if [ ! -e .venv/complete ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        rm -f .venv/complete
        rm -rf .venv
        python3.11 -m venv .venv
    fi
    rm -f .venv/complete
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r Testing/requirements.txt ||
        fail "the packages of Testing/requirements.txt could not be installed: see the lines above, then run make again"
    # setuptools warns of a folder named like its package; the paths are the same.
    PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation -e .
    touch .venv/complete
}

# Two calls at a time must not write one environment.
if command -v flock >/dev/null && [ -z "${UNETSEG_PREPARE_LOCKED:-}" ]; then
    UNETSEG_PREPARE_LOCKED=1 exec flock Testing/prepare.sh Testing/prepare.sh "$@"
fi

case "${1:-}" in
    venv) prepare_venv ;;
    system) prepare_system ;;
    *) fail "unknown step '${1:-}': choose venv or system" ;;
esac
