#!/usr/bin/env bash
# Resolves pyproject.toml into the two committed locks, with uv in an environment of its own.
#
# uv does not read pip's configuration: where torch's CPU build is not on the default index, say so with UV_FIND_LINKS
# or UV_INDEX (for example UV_INDEX=https://download.pytorch.org/whl/cpu).
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3.11}" -m venv "$scratch"
"$scratch/bin/pip" install -q uv==0.13.8
compile() {
    "$scratch/bin/uv" pip compile pyproject.toml -q --extra dev --python-version 3.11 --no-emit-index-url \
        --no-emit-find-links --python-platform x86_64-manylinux_2_28 --custom-compile-command 'make lock' "$@"
}
compile --extra cpu --override requirements/overrides-cpu.txt -o requirements/cpu.lock
compile --extra cuda -o requirements/cuda.lock
