#!/usr/bin/env bash
# Create .venv with Python 3.12 and install the project into it, at the versions of constraints.txt.
# Package indexes, proxies and caches are those of the machine's uv and pip settings.
set -euo pipefail
cd "$(dirname "$0")/.."

is_python_312() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1
}

create_venv() {
    local python
    for python in python3.12 python3 python; do
        if is_python_312 "$python"; then
            echo "Creating .venv with $(command -v "$python")"
            "$python" -m venv --clear .venv && return
            rm -rf .venv
            echo "error: $python cannot create a virtual environment; install its venv module" \
                "(Debian and Ubuntu: apt-get install python3.12-venv) and run make again" >&2
            exit 1
        fi
    done
    echo "error: Python 3.12 was not found as python3.12, python3 or python;" \
        "install it (https://www.python.org/downloads/) and run make again" >&2
    exit 1
}

install_project() {
    local quiet=()
    [ -t 1 ] || quiet=(--quiet)
    if .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'; then
        # Without compiled bytecode, every first import compiles anew, and all imports do where Python may not write it
        # (PYTHONDONTWRITEBYTECODE, as in many containers): a command then starts twice as slowly.
        UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}" UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE:-1}" \
            .venv/bin/python -m uv pip install \
            ${quiet[@]+"${quiet[@]}"} --python .venv/bin/python -c constraints.txt -e '.[all,pusht]' && return
    fi
    echo "uv could not install the project; trying pip, which is slower" >&2
    .venv/bin/python -m pip install ${quiet[@]+"${quiet[@]}"} --disable-pip-version-check \
        -c constraints.txt -e '.[all]'
}

is_python_312 .venv/bin/python || create_venv
echo "Installing the project into .venv (the first time a few minutes and several GB, mostly PyTorch)"
install_project
.venv/bin/python scripts/system_packages.py
