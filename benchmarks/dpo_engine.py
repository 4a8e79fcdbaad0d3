"""Preference pairs -> pairs/s and memory of DPO by our packed engine beside unmodified TRL, same model, same pairs.

    python benchmarks/dpo_engine.py --json dpo_engine.json
    python benchmarks/dpo_engine.py --completions 4 --pairs 48 --global-batch 24 --budget 2048 \
        --contenders trl trl_fast trl_precompute_fast ours grouped
    python benchmarks/dpo_engine.py --device cuda --shape mistral-7b --checkpointing --budget 16384 --pairs 512 \
        --contenders trl_default trl trl_precompute ours --trl-batches 1 2 4 8 --json dpo_engine.json

TRL runs as its defaults are (the reference model live, activations recomputed in the backward pass, 8 pairs at a time),
so at the batch size that is fastest for it, and at that size without recomputing; the last two also with
`precompute_ref_log_probs`. Ours is the reference stage's scorer, then training; it recomputes with --checkpointing.
Each run is a process of its own, contenders take turns, figures are medians and ratios are medians of the rounds'
ratios. TRL's best batch size is found on the first two optimizer steps' pairs. A run trains one epoch with the same
global batch; loading and tokenizing are not counted. With --completions over 2 every two completions of a prompt are a
pair, and `grouped` trains on a prompt with all of them at once; ratios are of the last contender. Reference log-probs
are counted once over one epoch, over three, and not. CPU seconds stand beside wall seconds: other load on the machine
changes them less.

benchmarks/dpo_pairs.py has the pairs. A useful token is one of a pair with its prompt once. Memory is the process's
peak, and what of it came with the models and the training: the peak above what the process held after it had trained a
tiny model on two short pairs. MFU (on a GPU) is 6 x weights outside the embeddings x useful tokens / (training seconds
x peak FLOP/s), attention's own products left out. The floor is what the useful tokens' matrix products cost at the rate
that a plain product reaches in the same run: 6 FLOPs for each weight of the layers and useful token, 6 for each weight
of the head and completion token, 12 for each layer, pair of a token with one that it sees, and number in their queries.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dpo_pairs import DATA, make_groups, make_pairs
from dpo_runs import OURS, run_contender

CONTENDERS = {
    "trl_default": "TRL as it comes (batch 8)",
    "trl": "TRL as it comes, best batch",
    "trl_fast": "TRL, not recomputing, best batch",
    "trl_precompute": "TRL, precomputed reference, best batch",
    "trl_precompute_fast": "TRL, precomputed reference, not recomputing, best batch",
    "ours": "ours, packed",
    "grouped": "ours, all completions of a prompt at once",
}
TRL_DEFAULT_BATCH = 8
H100_BF16_FLOPS = 989e12
EPOCHS = {"1 epoch": 1, "3 epochs": 3, "training alone": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--completions", type=int, default=2, help="of a prompt; every two of them are a pair")
    parser.add_argument("--global-batch", type=int, default=8)
    parser.add_argument("--budget", type=int, default=1024, help="our tokens_per_micro_batch")
    parser.add_argument("--checkpointing", action="store_true", help="ours recomputes activations, too")
    parser.add_argument("--trl-batches", type=int, nargs="+", default=[1, 2, 4], help="sizes that TRL chooses of")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS)[:-1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=["12m", "mistral-7b"], default="12m")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--lora", action="store_true", help="train an adapter of rank 16 instead of all weights")
    parser.add_argument("--peak-flops", type=float, default=H100_BF16_FLOPS, help="of the GPU, for the MFU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.global_batch % TRL_DEFAULT_BATCH:
        parser.error(f"--global-batch must be a multiple of TRL's batch of {TRL_DEFAULT_BATCH}")
    args.pairs_per_prompt = args.completions * (args.completions - 1) // 2
    if args.pairs % args.pairs_per_prompt or args.global_batch % args.pairs_per_prompt:
        parser.error(f"--pairs and --global-batch must be multiples of a prompt's {args.pairs_per_prompt} pairs")
    if args.child:
        print(json.dumps(run_contender(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = compare(args, Path(folder))
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    groups = make_groups(make_pairs(args.data, args.pairs // args.pairs_per_prompt), args.completions)
    (folder / "groups.json").write_text(json.dumps(groups))
    batches = best_batches(args, folder)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in args.contenders}
    for number in range(args.repeats):
        for name in args.contenders:
            runs[name].append(run(name, batches[name], args, folder))
            print(f"{number + 1}/{args.repeats} {name}: {runs[name][-1]}", file=sys.stderr)
    options = {
        name: str(value) for name, value in vars(args).items() if name not in ("json", "child", "batch", "limit")
    }
    *peers, last = args.contenders
    ratios = {name: against(runs[last], runs[name]) for name in peers if last in OURS}
    return {
        "options": options,
        "batch": batches,
        "runs": runs,
        "figures": {name: figures(own) for name, own in runs.items()},
        "ratios": ratios,
    }


def best_batches(args: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Pairs that each contender computes at a time; ours goes by its budget. What is best is so with and without
    recomputing: the padding decides."""
    found = {"trl_default": TRL_DEFAULT_BATCH} | dict.fromkeys(OURS, 1)
    for name in ("trl", "trl_precompute"):
        if not {name, f"{name}_fast"} & set(args.contenders):
            continue
        rates = {size: trial_rate(name, size, args, folder) for size in args.trl_batches}
        print(f"trial {name}: {rates}", file=sys.stderr)
        found[name] = found[f"{name}_fast"] = max(rates, key=lambda size: rates[size])
    return found


def trial_rate(name: str, batch: int, args: argparse.Namespace, folder: Path) -> float:
    """Pairs per second on the first two steps' pairs; 0 where the GPU's memory does not hold the batch."""
    try:
        return pairs_per_second(run(name, batch, args, folder, 2 * args.global_batch), 1)
    except SystemExit as error:
        if "OutOfMemoryError" in str(error):
            return 0.0
        raise


def run(name: str, batch: int, args: argparse.Namespace, folder: Path, limit: int | None = None) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--child", name, "--batch", str(batch)]
    command += ["--limit", str(limit)] if limit else []
    environment = os.environ | {
        "OMP_NUM_THREADS": str(args.threads),
        "OMP_WAIT_POLICY": "passive",  # waiting threads would count as CPU time
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def pairs_per_second(one: dict[str, float], epochs: int | None, clock: str = "seconds") -> float:
    """Pairs trained on per second, the reference's share included over so many epochs; None: not counted."""
    reference = one[f"reference_{clock}"] / epochs if epochs else 0.0
    return one["pairs"] / (one[f"train_{clock}"] + reference)


def figures(runs: list[dict[str, float]]) -> dict[str, float]:
    """What the runs of a contender showed, medians where a run differs from the next."""
    last = runs[-1]
    row = {
        "useful tokens per pair": last["useful_tokens"] / last["pairs"],
        "computed tokens per pair": last["computed_tokens"] / last["pairs"],
        "padding share": last["padding_share"],
        "sequences forward per pair": last["forwards"] / last["pairs"],
    }
    for label, epochs in EPOCHS.items():
        row[f"pairs/s, {label}"] = statistics.median(pairs_per_second(one, epochs) for one in runs)
    row["useful tokens/s, training alone"] = row["pairs/s, training alone"] * row["useful tokens per pair"]
    measured = {"peak_mib": "peak MiB", "training_mib": "MiB of it with the training", "mfu": "MFU"}
    measured["over_floor"] = "CPU time over the floor's, training alone"
    for name, label in measured.items():
        if name in last:
            row[label] = statistics.median(one[name] for one in runs)
    return row


def against(ours: list[dict[str, float]], peer: list[dict[str, float]]) -> dict[str, float]:
    """Our pairs/s over a peer's, and our memory over its."""
    rounds = list(zip(ours, peer, strict=True))
    row = {}
    for clock, unit in (("seconds", "wall"), ("cpu_seconds", "CPU")):
        for label, epochs in EPOCHS.items():
            ratios = [pairs_per_second(a, epochs, clock) / pairs_per_second(b, epochs, clock) for a, b in rounds]
            row[f"{unit}, {label}"] = statistics.median(ratios)
    row["peak memory"] = statistics.median(a["peak_mib"] / b["peak_mib"] for a, b in rounds)
    row["memory of the training"] = statistics.median(a["training_mib"] / b["training_mib"] for a, b in rounds)
    return row


def show(result: dict[str, Any]) -> None:
    print("batch:", result["batch"])
    table("figure", result["figures"])
    print()
    table(f"{CONTENDERS[list(result['runs'])[-1]]} over the peer's", result["ratios"])


def table(title: str, columns: dict[str, dict[str, float]]) -> None:
    """Contenders side by side, a figure a line."""
    print(f"| {title} |", " | ".join(CONTENDERS[name] for name in columns), "|")
    print("| --- |" + " --- |" * len(columns))
    for label in next(iter(columns.values()), {}):
        print(f"| {label} |", " | ".join(f"{column[label]:.3g}" for column in columns.values()), "|")


if __name__ == "__main__":
    main()
