#!/usr/bin/env bash
# Resolves pyproject.toml into the two locks, keeping the versions that stand in them where it can:
# requirements/lock.sh [PYTHON FOLDER], by default with an environment of its own into this folder.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-} folder=${2:-requirements}
if [ -z "$python" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    "${PYTHON:-python3.11}" -m venv "$scratch"
    python=$scratch/bin/python
fi
compile() {
    local kind=$1
    shift
    requirements/uv.sh "$python" "$kind" pip compile pyproject.toml -q --extra dev --extra "$kind" --generate-hashes \
        --python-version 3.11 --python-platform x86_64-manylinux_2_31 --no-emit-index-url --no-emit-find-links \
        --custom-compile-command 'make lock' -o "$folder/$kind.lock" "$@" >/dev/null
}
compile cpu --override requirements/overrides-cpu.txt
compile cuda
