"""One GPU, pairs of token ids -> whether the packed DPO engine computes the right numbers there, and how fast it is.

    make gpu-kit                                                  # where there is a network: wheels, pairs, source
    python benchmarks/gpu.py --pairs pairs.json --out DIR         # on the machine with the GPU, which needs none
    python benchmarks/gpu.py --tiny --out DIR                     # the same on a CPU, to try every part

Needs torch, transformers, TRL, PEFT and datasets; neither Ray nor DeepSpeed. Everything runs in one process, parts in
order of what they are worth, each of them only if the time until --deadline allows it. A part prints its findings as
JSON lines and appends them to DIR/gpu.jsonl as it goes; a part that fails leaves its traceback there, and the next one
starts. Compilation is outside all clocks, and each training run says how many graphs were compiled within.

| part | what |
| --- | --- |
| 0 | versions, the rate of a plain product and of a copy |
| 1 | FlexAttention's kernel on packed rows against a dense mask in float64, forward and backward; compilations |
| 2 | log-probs and gradients of two layers of a 7B model: packed rows, plain sequences, TRL's padded batches |
| 3 | how far bfloat16 lets log-probs differ between packings: what a check of the first step must let pass |
| 4 | training all weights of 8 layers (2.0 billion) beside TRL |
| 5 | training an adapter of rank 16 on 32 layers (7.2 billion) beside TRL |
| 6 | where the time of a step goes |
| 7 | as 4 and 5, with compiled layers |
| 8 | the check of the first step: right runs under three packings, wrong references |
| 9 | as 4, with four completions of a prompt: all at once beside pair by pair and TRL |
| 10 | all weights of 32 layers without Adam's moments |

MFU counts each pair's prompt once, for both sides, so that its ratios are those of pairs/s:

    sum over pairs of k layers (P + C + R) + k' head (C + R) + 12 L d (P^2/2 + C P + C^2/2 + R P + R^2/2)

with P, C, R tokens of prompt, chosen and rejected, `layers` and `head` the weights of the layers' products and of the
vocabulary's, L layers of d = heads x head dimension numbers; k = k' = 6 where all weights are trained, k' = 4 and
k = 4 + 6 adapter / layers with an adapter; over the seconds and 989e12 FLOP/s. HFU also counts recomputing.
"""

from __future__ import annotations

import faulthandler
import os
import time

BEGUN = time.monotonic()
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "CUDA_VISIBLE_DEVICES": "0",
}
os.environ |= {name: os.environ.get(name, value) for name, value in SETTINGS.items()}

import argparse  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

# Module, function, seconds that it takes on an H100: a race's first turn, and the second only if there is time.
PARTS = {
    0: ("machine", "machine", 15),
    1: ("kernel", "flex_kernel", 60),
    2: ("exact", "exactness", 40),
    3: ("exact", "packing_noise", 40),
    4: ("training", "full_training", 75),
    6: ("profiling", "where_time_goes", 25),
    5: ("training", "lora_training", 180),
    7: ("extras", "compiled_layers", 120),
    8: ("first_step", "first_step", 60),
    9: ("training", "grouped_training", 75),
    10: ("extras", "whole_model", 50),
}
GRACE_SECONDS = 10  # beyond the deadline for what runs then


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(map(str, PARTS)), help="in this order")
    parser.add_argument("--deadline", type=float, default=330.0, help="seconds from the start")
    parser.add_argument("--pairs", type=Path, help="tokenized pairs as JSON; drawn where there is no such file")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"))
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU")
    args = parser.parse_args()
    faulthandler.dump_traceback_later(args.deadline + GRACE_SECONDS - (time.monotonic() - BEGUN), exit=True)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "gpu.jsonl"
    bench, source = make_bench(args)
    record(path, {"pairs": len(bench.pairs), "source": source, "device": bench.device, "import_seconds": elapsed()})
    for number in map(int, args.parts.split(",")):
        run_part(number, bench, path)
    record(path, {"done": True, "seconds": elapsed()})
    faulthandler.cancel_dump_traceback_later()


def make_bench(args: argparse.Namespace) -> tuple[Any, str]:
    import torch
    from gpu_parts.bench import TINY, Bench, Sizes, load_pairs

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.tiny:
        sys.exit("no GPU here; --tiny tries the parts on a CPU")
    # One graph for each dtype, with and without gradients and autocast, one-block rows and longer ones.
    torch._dynamo.config.recompile_limit = 64
    sizes = TINY if args.tiny else Sizes()
    pairs, source = load_pairs(args.pairs, sizes)
    if device == "cpu":
        compile_on_cpu()
    return Bench(device, sizes, pairs, BEGUN + args.deadline, flex=device == "cuda"), source


def compile_on_cpu() -> None:
    """The kernel that a GPU would run, compiled; without, torch computes FlexAttention as one dense product."""
    from zephyr_ray.training.packed import attention

    kernel = attention._compiled_flex()
    attention._plain_flex = lambda: kernel


def run_part(number: int, bench: Any, path: Path) -> None:
    """Runs a part, its findings written as they come. What goes wrong in it is one of them."""
    module, function, cost = PARTS[number]
    about = {"part": number, "what": function}
    if bench.left() < cost:
        record(path, about | {"skipped": f"it takes {cost} s, and {bench.left():.0f} s are left"})
        return
    begun = time.monotonic()
    try:
        for found in getattr(importlib.import_module(f"gpu_parts.{module}"), function)(bench):
            record(path, about | found)
    except Exception:  # a part's boundary
        record(path, about | {"error": traceback.format_exc()[-4000:]})
    from gpu_parts.bench import release

    release()
    record(path, about | {"seconds": round(time.monotonic() - begun, 1), "at": elapsed()})


def record(path: Path, line: dict[str, Any]) -> None:
    text = json.dumps(line, default=str)
    print(text, flush=True)
    with path.open("a") as stream:
        stream.write(text + "\n")


def elapsed() -> float:
    return round(time.monotonic() - BEGUN, 1)


if __name__ == "__main__":
    main()
