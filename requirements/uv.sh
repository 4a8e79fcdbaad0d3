#!/usr/bin/env bash
# Runs uv, of the version and hash in uv.txt, from PYTHON's environment: requirements/uv.sh PYTHON cpu|cuda ARGUMENT...
#
# uv does not read pip's configuration, so it is handed over here. torch's CPU build is not on the default index: it is
# looked for where pip is configured to, in folders of wheels and on other indexes, then on PyTorch's own CPU index. The
# default index goes before these, for everything that both have. The CUDA lock gets none of them: 2.13.0+cpu would pass
# for its torch==2.13.0.
set -euo pipefail
python=$1 kind=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
if [[ $("$python" -m uv --version 2>/dev/null) != "uv $(sed -nE 's/^uv==([^ ]+).*/\1/p' "$here/uv.txt") "* ]]; then
    said=$("$python" -m pip install -q --disable-pip-version-check --require-hashes -r "$here/uv.txt" 2>&1) || {
        echo "$said" >&2
        exit 1
    }
fi
configured=$("$python" -m pip config list | sed 's/\\n/ /g')
pip_says() { sed -nE "s/^(:env:|global|install)\.$1='(.*)'$/\2/p" <<< "$configured"; }

index=$(pip_says index-url | head -1)
cert=$(pip_says cert | head -1)
[ -z "$index" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
[ -z "$cert" ] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$cert}

compile() { "$python" -m uv pip compile -q --no-deps --no-header --python "$python" "$@" -; }
offered() { grep '^torch==' "$here/overrides-cpu.txt" | compile >/dev/null 2>&1; }
search() {
    offered && return
    for folder in $(pip_says find-links); do
        UV_FIND_LINKS=$folder offered && export UV_FIND_LINKS=$folder && return
    done
    index=${UV_DEFAULT_INDEX:-$(compile --emit-index-url <<< "" | sed -n 's/^--index-url //p')}
    export UV_INDEX=$index UV_INDEX_STRATEGY=unsafe-best-match
    for index in $(pip_says extra-index-url) https://download.pytorch.org/whl/cpu; do
        export UV_DEFAULT_INDEX=$index
        offered && return
    done
}
[ "$kind" != cpu ] || search || true
exec "$python" -m uv "$@"
