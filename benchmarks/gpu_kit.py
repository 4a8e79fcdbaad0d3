"""The lock, pairs -> one folder that benchmarks/gpu.py needs on a machine with a GPU and without a network.

    make gpu-kit DATA=ultrafeedback_binarized_train.jsonl       # build/gpu-kit; without data, lengths are drawn

The machine has torch for CUDA, triton, transformers, accelerate, peft, pyarrow, pandas and xxhash. What it may lack
beside them comes as wheels for its Python, in the lock's versions. The folder has `run.sh`, which installs them beside
the machine's own packages and starts the benchmark: run.sh OUT [options of gpu.py].
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from dpo_pairs import DATA, make_pairs

ROOT = Path(__file__).parents[1]
WHEELS = (
    "trl",
    "datasets",
    "dill",
    "multiprocess",
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "typing-extensions",
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PAIRS = 64
MOST_BYTES = 20_000_000
RUN = """\
#!/usr/bin/env bash
# run.sh OUT [options of gpu.py]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$here"/wheels/*.whl
export PYTHONPATH=$site:$here PYTHONUNBUFFERED=1
exec python3 "$here/benchmarks/gpu.py" --pairs "$here/pairs.json" --out "$out" "$@"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="pairs as benchmarks/dpo_pairs.py reads them")
    parser.add_argument("--python", default="3.12", help="the machine's")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    (args.folder / "pairs.json").write_text(json.dumps(make_pairs(args.data, PAIRS), separators=(",", ":")))
    for name in ("zephyr_ray", "benchmarks"):
        shutil.copytree(ROOT / name, args.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    download(args.folder / "wheels", args.python)
    (args.folder / "run.sh").write_text(RUN)
    (args.folder / "run.sh").chmod(0o755)
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        sys.exit(f"{args.folder} has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")
    print(f"{args.folder}: {size / 1e6:.1f} MB")


def download(folder: Path, python: str) -> None:
    """The wheels of that Python, in the lock's versions."""
    lock = dict(line.split("==") for line in (ROOT / "requirements/cuda.lock").read_text().split() if "==" in line)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    command += ["--python-version", python, "--implementation", "cp"]
    command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run(command + [f"{name}=={lock[name]}" for name in WHEELS], check=True)


if __name__ == "__main__":
    main()
