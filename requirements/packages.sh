#!/usr/bin/env bash
# Installs a lock into PYTHON's environment: requirements/packages.sh PYTHON cpu|cuda [UV OPTION...]
#
# Nothing is resolved (each lock is complete) and every file has to have the lock's hash. Only deepspeed comes as
# source: uv builds it apart, where no torch is, with the locked setuptools. With torch beside it its build would ask
# torch for a build_ext of its own, which that setuptools refuses. Either way its operators are compiled at first use.
# Bytecode is made here: under PYTHONDONTWRITEBYTECODE every start of every worker would compile everything anew.
set -euo pipefail
python=$(command -v "$1") kind=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/uv.sh" "$python" "$kind" pip install -q --python "$python" --no-deps --require-hashes --compile-bytecode \
    --only-binary :all: --no-binary deepspeed --build-constraints "$here/$kind.lock" -r "$here/$kind.lock" "$@"
