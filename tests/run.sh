#!/usr/bin/env bash
# Run everything: what is missing is installed first, then the checks, then the tests on real servers.
#
#   bash tests/run.sh                  all of it
#   bash tests/run.sh -k demo          arguments go to pytest
#   bash tests/run.sh -m nightly       the slow and destructive tests
#
# As root or with sudo it installs Debian packages; when all of them are there it touches neither apt nor the
# network. DBLENS_TEST_VENV names another virtual environment than .venv-test, PYTHON another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${DBLENS_TEST_VENV:-.venv-test}
export DBLENS_REQUIRE_SERVERS=${DBLENS_REQUIRE_SERVERS:-1}
stage_title=start
cleanup=()
finish() {
    local code=$? step
    for step in "${cleanup[@]}"; do eval "$step"; done
    ((code == 0)) || printf '\n== failed: %s (%d s in all)\n' "$stage_title" "$SECONDS" >&2
}
trap finish EXIT

stage() { # stage TITLE COMMAND...
    local began=$SECONDS
    stage_title=$1
    printf '\n== %s\n' "$stage_title"
    "${@:2}"
    printf '== %s: %d s\n' "$stage_title" $((SECONDS - began))
}

as_root() {
    if (($(id -u) == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        printf 'cannot run as root: %s\n\nhint: run it yourself once, or install sudo\n' "$*" >&2
        return 1
    fi
}

installed() { [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# A Python that can make virtual environments: Debian's needs python3-venv, one of pyenv is complete.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
        if "$candidate" -c 'import sys, ensurepip, venv, ssl, sqlite3; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

has_headers() {
    "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

# Tests start their own private servers: the packages' own daemons never run, and no cluster is made for them.
apt_install() {
    local fresh_cluster=false fresh_mariadb=false fresh_ssh=false
    [[ " $* " == *" postgresql-15 "* && ! -e /etc/postgresql/15/main ]] && fresh_cluster=true
    [[ " $* " == *" mariadb-server "* ]] && fresh_mariadb=true
    [[ " $* " == *" openssh-server "* ]] && fresh_ssh=true
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        cleanup+=("as_root rm -f /usr/sbin/policy-rc.d")
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod 755 /usr/sbin/policy-rc.d
    fi
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    as_root "${apt[@]}" update
    as_root "${apt[@]}" install --yes --no-install-recommends "$@" >/dev/null
    if $fresh_cluster && [[ -e /etc/postgresql/15/main ]]; then
        as_root pg_dropcluster --stop 15 main
    fi
    if $fresh_mariadb && [[ -d /run/systemd/system ]]; then
        as_root systemctl disable --quiet --now mariadb
    fi
    if $fresh_ssh && [[ -d /run/systemd/system ]]; then
        as_root systemctl disable --quiet --now ssh
    fi
}

packages() {
    local name missing=()
    for name in postgresql-15 mariadb-server gcc libc6-dev pkg-config default-libmysqlclient-dev \
        openssh-client openssh-server chromium; do
        installed "$name" || missing+=("$name")
    done
    if ! python=$(find_python); then
        missing+=(python3 python3-venv python3-dev)
    elif ! has_headers "$python"; then
        missing+=(python3-dev)
    fi
    if ((${#missing[@]})); then
        if ! command -v apt-get >/dev/null; then
            printf 'missing: %s\n\nhint: this is no Debian; install their like by hand\n' "${missing[*]}" >&2
            return 1
        fi
        printf 'installing %s\n' "${missing[*]}"
        apt_install "${missing[@]}"
    fi
    if ! python=$(find_python); then
        printf 'no Python >= 3.11 that can make a virtual environment\n\nhint: set PYTHON\n' >&2
        return 1
    fi
    "$python" --version
}

environment() {
    "$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"
    local stamp
    stamp=$("$venv/bin/python" -VV && sha256sum pyproject.toml requirements-dev.lock && pwd)
    if [[ $(cat "$venv/.dblens-stamp" 2>/dev/null) != "$stamp" ]]; then
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint requirements-dev.lock --editable '.[dev]'
        printf '%s\n' "$stamp" >"$venv/.dblens-stamp"
    fi
}

run() { "$venv/bin/$1" "${@:2}"; }

stage packages packages
stage environment environment
stage 'ruff format' run ruff format --check .
stage 'ruff check' run ruff check .
stage mypy run mypy -p dblens -p tests.servers
stage imports run lint-imports
stage servers run python -m tests.servers
stage pytest run python -m pytest -n 2 --dist worksteal --durations 40 "$@"
printf '\n== all passed: %d s\n' "$SECONDS"
