"""Reads ZeRO-3 shards that two processes wrote -> what it costs that another number of workers loads them.

    python benchmarks/reshard.py --json reshard.json

Three ways, each for one worker and for four, in turns, medians:
ours: every worker cuts its own shard out of the old ones (`training/zero_resharding.py`) and loads it.
consolidated: one worker joins everything in one copy; then every worker cuts its own shard out of that and loads it.
universal: DeepSpeed's `ds_to_universal`, then every worker reads every weight's files, as DeepSpeed's engine does.

Workers take turns in one process each, so times are sums over workers: on a machine with a core for each, those of
cutting and loading are divided by their number, those of making one copy are not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

REPO = Path(__file__).resolve().parents[1]
WAYS = ("ours", "consolidated", "universal")
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=48, help="of the model, in millions")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        _step(*args.step)
        return
    with tempfile.TemporaryDirectory() as work:
        shards = Path(work) / "shards"
        shards.mkdir()
        write_shards(shards, args.weights)
        contenders = [(workers, way) for workers in (1, 4) for way in WAYS]
        runs = [[measure(way, shards, workers) for workers, way in contenders] for _ in range(args.repeats)]
    figures = [summary(*contender, each) for contender, each in zip(contenders, zip(*runs, strict=True), strict=True)]
    print("| workers now | way | seconds | longest worker, s | written MiB | peak MiB of a process |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in figures:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


def write_shards(folder: Path, millions: int) -> None:
    """What DeepSpeed's ZeRO-3 writes from two processes, of random numbers: layers of square matrices and norms."""
    width = 1024
    shapes = {f"layers.{number}.weight": torch.Size([width, width]) for number in range(millions)}
    norms = {f"layers.{number}.norm": torch.Size([width]) for number in range(millions)}
    numels = [sum(shape.numel() for shape in group.values()) // 2 for group in (shapes, norms)]
    for rank in range(2):
        state = {
            number: {"step": torch.tensor(5.0), "exp_avg": torch.randn(size), "exp_avg_sq": torch.rand(size)}
            for number, size in enumerate(numels)
        }
        groups = [{"lr": 1e-3, "weight_decay": decay, "params": [number]} for number, decay in enumerate((0.1, 0.0))]
        optimizer = {
            "zero_stage": 3,
            "loss_scaler": None,
            "dynamic_loss_scale": False,
            "overflow": False,
            "partition_count": 2,
            "optimizer_state_dict": {"state": state, "param_groups": groups},
            "fp32_flat_groups": [torch.randn(size) for size in numels],
        }
        prefix = f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save({"optimizer_state_dict": optimizer}, folder / f"{prefix}_optim_states.pt")
        model = {"module": {}, "param_shapes": [shapes, norms], "dp_world_size": 2, "frozen_param_fragments": None}
        torch.save(model, folder / f"{prefix}_model_states.pt")


def measure(way: str, shards: Path, workers: int) -> list[dict[str, float]]:
    """Figures of every step, each a process of its own: first of the joint ones, then of each worker."""
    with tempfile.TemporaryDirectory(dir=shards.parent) as folder:
        once = [_child("join", way, str(shards), folder, "0", str(workers))] if way != "ours" else []
        return once + [_child("load", way, str(shards), folder, str(rank), str(workers)) for rank in range(workers)]


def summary(workers: int, way: str, runs: tuple[list[dict[str, float]], ...]) -> dict[str, Any]:
    """Medians over the repeats."""

    def longest(run: list[dict[str, float]]) -> float:
        return sum(step["seconds"] for step in run[:-workers]) + max(step["seconds"] for step in run[-workers:])

    return {
        "workers": workers,
        "way": way,
        "seconds": round(statistics.median(sum(step["seconds"] for step in run) for run in runs), 2),
        "longest": round(statistics.median(longest(run) for run in runs), 2),
        "written": round(sum(step["written"] for step in runs[0]) / MIB),
        "peak": round(max(step["peak"] for run in runs for step in run) / MIB),
    }


def _child(*step: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", *step]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(REPO)}
    )
    return json.loads(done.stdout.splitlines()[-1])


def _step(name: str, way: str, shards: str, folder: str, rank: str, workers: str) -> None:
    import deepspeed.checkpoint.ds_to_universal  # noqa: F401  (what is imported is no part of the figures)

    from zephyr_ray.training import zero_resharding

    base, before = _peak(), _written()
    begun = time.perf_counter()
    target = os.path.join(folder, f"worker-{rank}")
    if name == "join" and way == "consolidated":
        os.makedirs(os.path.join(folder, "whole"))
        zero_resharding.write_weights(shards, os.path.join(folder, "whole"), 0, 1)
        zero_resharding.write_optimizer(shards, os.path.join(folder, "whole"), 0, 1)
    elif name == "join":
        _to_universal(shards, os.path.join(folder, "universal"))
    elif way == "universal":
        _read_universal(Path(folder) / "universal" / "zero", int(rank), int(workers))
    else:
        os.makedirs(target)
        source = shards if way == "ours" else os.path.join(folder, "whole")
        zero_resharding.write_weights(source, target, int(rank), int(workers))
        zero_resharding.write_optimizer(source, target, int(rank), int(workers))
        torch.load(next(Path(target).glob("*_optim_states.pt")), weights_only=False)
        shutil.rmtree(target)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "written": _written() - before, "peak": _peak() - base}))


def _to_universal(shards: str, target: str) -> None:
    from deepspeed.checkpoint.ds_to_universal import main as convert

    keep = {"keep_temp_folder": False, "strict": True, "inject_missing_state": False}
    convert(
        argparse.Namespace(
            input_folder=shards, output_folder=target, num_extract_workers=1, num_merge_workers=1, **keep
        )
    )


def _read_universal(folder: Path, rank: int, workers: int) -> None:
    """DeepSpeedZeroOptimizer_Stage3.load_hp_checkpoint_state: the whole file of each state, then this rank's slice."""
    slices = []
    for path in sorted(folder.rglob("*.pt")):
        if path.stem in ("fp32", "exp_avg", "exp_avg_sq"):
            slices.append(torch.load(path, weights_only=False).view(-1).chunk(workers)[rank].clone())


def _written() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
