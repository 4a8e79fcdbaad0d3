#!/usr/bin/env bash
# Makes the virtual environment from a lock: requirements/install.sh VENV cpu|cuda
set -euo pipefail
venv=$1 kind=$2
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3.11}

command -v "$python" >/dev/null || python=python3
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "error: Python 3.11 is needed, and '$python' is not it; set PYTHON=/path/to/python3.11" >&2
    exit 2
fi
# uv makes bytecode of what it installs, at the end: what an interrupted run has left would stay without.
[ ! -e "$venv/.unfinished" ] || clear=--clear
"$python" -m venv ${clear:-} "$venv"
touch "$venv/.unfinished"
echo "  $(grep -c '^[a-z].*==' "$here/$kind.lock") packages"
"$here/packages.sh" "$venv/bin/python" "$kind"
rm "$venv/.unfinished"
echo "  this project"
"$venv/bin/python" -m uv pip install -q --python "$venv/bin/python" --no-deps --no-build-isolation --compile-bytecode \
    -e "$here/.."
