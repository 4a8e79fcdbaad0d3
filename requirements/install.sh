#!/usr/bin/env bash
# Makes the virtual environment from a lock: requirements/install.sh VENV cpu|cuda
#
# Nothing is resolved: each lock is complete, so --no-deps. torch's CPU build comes from wherever pip is configured to
# look, and only if it is not there from PyTorch's own CPU index.
set -euo pipefail
venv=$1 kind=$2
here=$(cd "$(dirname "$0")" && pwd)
lock=$here/$kind.lock
python=${PYTHON:-python3.11}

command -v "$python" >/dev/null || python=python3
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "error: Python 3.11 is needed, and '$python' is not it; set PYTHON=/path/to/python3.11" >&2
    exit 2
fi
"$python" -m venv "$venv"
# PYTHONDONTWRITEBYTECODE would leave site-packages uncompiled: every start of every worker would compile it anew.
unset PYTHONDONTWRITEBYTECODE
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

torch=$(grep -E '^torch==' "$lock")
if [ "$kind" = cpu ]; then
    pip install -q --no-deps "$torch" 2>/dev/null ||
        pip install -q --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"
else
    pip install -q --no-deps "$torch"
fi
# deepspeed comes as source. It is built apart, where no torch is: with the two in one place its build asks torch for a
# build_ext of its own, which the locked setuptools refuses. Its operators are compiled when first used either way.
grep -vE '^(torch|deepspeed)==' "$lock" > "$venv/wheels.txt"
pip install -q --no-deps --only-binary :all: -r "$venv/wheels.txt"
PIP_CONSTRAINT=$venv/wheels.txt pip install -q --no-deps "$(grep -E '^deepspeed==' "$lock")"
pip install -q --no-deps --no-build-isolation -e "$here/.."
