"""Preference pairs -> pairs/s and memory of DPO by our packed engine beside unmodified TRL, same model, same pairs.

    python benchmarks/dpo_engine.py --json dpo_engine.json
    python benchmarks/dpo_engine.py --device cuda --shape mistral-7b --budget 16384 --pairs 512 --json dpo_engine.json

Contenders: TRL's `DPOTrainer` as it comes (the reference model runs live), TRL with `precompute_ref_log_probs`, and
ours (the reference stage's scorer, then training). Each run is a process of its own, contenders take turns, figures are
medians and ratios are medians of the rounds' ratios. TRL runs at the batch size that was fastest for it in a trial on
the first two optimizer steps' pairs. A run trains one epoch with the same global batch; loading and tokenizing are not
counted. Reference log-probs are counted once over one epoch, over three, and not. CPU seconds stand beside wall
seconds: other load on the machine changes them less. Memory is the process's peak, and its peak above the one it had
when the model was made.

benchmarks/dpo_pairs.py has the pairs. A useful token is one of a pair with its prompt once. MFU (on a GPU) is 6 x
weights outside the embeddings x useful tokens / (training seconds x peak FLOP/s), attention's own products left out.
The floor is what matrix products of the useful tokens cost at the rate that a plain product reaches in the same run: 6
FLOPs for each weight of the layers and useful token, and for each weight of the head and completion token.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from dpo_pairs import VOCAB, make_pairs

DATA = Path(__file__).parents[2] / "shared/data/preferences/ultrafeedback_binarized_train.jsonl"
CONTENDERS = {
    "trl_default": "TRL as it comes: live reference, batch of 8",
    "trl": "TRL, live reference, best batch",
    "trl_precompute": "TRL, precomputed reference, best batch",
    "ours": "ours, packed",
}
PEERS = ("trl_default", "trl", "trl_precompute")
TRL_DEFAULT_BATCH = 8
H100_BF16_FLOPS = 989e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--budget", type=int, default=2048, help="our tokens_per_micro_batch")
    parser.add_argument("--trl-batches", type=int, nargs="+", default=[1, 2, 4, 8], help="sizes that TRL chooses of")
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
    if args.child:
        print(json.dumps(run_child(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = compare(args, Path(folder))
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


# --- the driver


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    (folder / "pairs.json").write_text(json.dumps(make_pairs(args.data, args.pairs)))
    batches = {name: best_batch(name, args, folder) for name in ("trl", "trl_precompute")}
    batches["trl_default"] = TRL_DEFAULT_BATCH
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(args.repeats):
        for name in CONTENDERS:
            runs[name].append(run(name, batches.get(name, 1), args, folder))
            print(f"{number + 1}/{args.repeats} {name}: {runs[name][-1]}", file=sys.stderr)
    options = {
        name: str(value) for name, value in vars(args).items() if name not in ("json", "child", "batch", "limit")
    }
    return {"options": options, "trl_batch": batches, "runs": runs, "summary": summarise(runs)}


def best_batch(name: str, args: argparse.Namespace, folder: Path) -> int:
    rates = {
        size: pairs_per_second(run(name, size, args, folder, 2 * args.global_batch), 1) for size in args.trl_batches
    }
    print(f"trial {name}: {rates}", file=sys.stderr)
    return max(rates, key=lambda size: rates[size])


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


def summarise(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name, own in runs.items():
        last = own[-1]
        row: dict[str, Any] = {
            "useful_tokens_per_pair": last["useful_tokens"] / last["pairs"],
            "computed_tokens_per_pair": last["computed_tokens"] / last["pairs"],
            "padding_share": last["padding_share"],
            "sequence_forwards_per_pair": last["forwards"] / last["pairs"],
            "peak_mib": statistics.median(one["peak_mib"] for one in own),
            "peak_above_start_mib": statistics.median(one["peak_above_start_mib"] for one in own),
        }
        for label, epochs in (("1_epoch", 1), ("3_epochs", 3), ("training_alone", None)):
            rates = [pairs_per_second(one, epochs) for one in own]
            row[f"pairs_per_s_{label}"] = statistics.median(rates)
            for other in PEERS:
                for clock in ("seconds", "cpu_seconds"):
                    ratios = [
                        pairs_per_second(one, epochs, clock) / pairs_per_second(peer, epochs, clock)
                        for one, peer in zip(own, runs[other], strict=True)
                    ]
                    row[f"against_{other}_{label}_{clock}"] = statistics.median(ratios)
        row["useful_tokens_per_s"] = row["pairs_per_s_training_alone"] * row["useful_tokens_per_pair"]
        for figure in ("mfu", "over_floor"):
            if figure in last:
                row[figure] = statistics.median(one[figure] for one in own)
        summary[name] = row
    return summary


def show(result: dict[str, Any]) -> None:
    names = list(CONTENDERS)
    print("TRL's batch:", result["trl_batch"])
    print("| figure |", " | ".join(CONTENDERS[name] for name in names), "|")
    print("| --- |" + " --- |" * len(names))
    for figure in result["summary"]["ours"]:
        print(f"| {figure} |", " | ".join(f"{result['summary'][name][figure]:.3g}" for name in names), "|")


# --- one run, in a process of its own


def run_child(args: argparse.Namespace) -> dict[str, float]:
    import torch

    torch.set_num_threads(args.threads)
    pairs = json.loads(Path("pairs.json").read_text())[: args.limit]
    model, count = make_model(args), Counter()
    held = peak_mib(args)
    measured = run_ours(args, model, pairs, count) if args.child == "ours" else run_trl(args, model, pairs, count)
    useful = sum(len(ids) for pair in pairs for ids in pair.values())
    measured |= {
        "pairs": len(pairs),
        "useful_tokens": useful,
        "computed_tokens": count.computed,
        "padding_share": 1 - count.real / count.computed,
        "forwards": count.sequences,
        "peak_mib": peak_mib(args),
        "peak_above_start_mib": peak_mib(args) - held,
    }
    if args.device == "cuda":
        weights = sum(weight.numel() for name, weight in model.named_parameters() if "embed_tokens" not in name)
        measured["mfu"] = 6 * weights * useful / (measured["train_seconds"] * args.peak_flops)
    elif not args.lora:
        measured["over_floor"] = measured["train_cpu_seconds"] / floor_seconds(model, pairs)
    return measured


def floor_seconds(model: Any, pairs: list[dict[str, list[int]]]) -> float:
    """CPU seconds of one pass, forward and backward, over the useful tokens' matrix products alone."""
    layers = sum(weight.numel() for weight in model.base_model.layers.parameters() if weight.ndim == 2)
    head = model.lm_head.weight.numel()
    tokens = sum(len(ids) for pair in pairs for ids in pair.values())
    completions = sum(len(pair[side]) for pair in pairs for side in ("chosen_ids", "rejected_ids"))
    return 6 * (layers * tokens + head * completions) / matmul_rate(model.config)


def matmul_rate(config: Any) -> float:
    """FLOPs per CPU second of the layers' largest product, on a packed row of tokens; the best of several tries."""
    import torch

    tokens, width, inner = 2048, config.hidden_size, config.intermediate_size
    left, right = torch.randn(tokens, width), torch.randn(width, inner)
    best, repeats = 0.0, 20
    for _ in range(10):
        with Clock() as clock:
            for _ in range(repeats):
                left @ right
        best = max(best, repeats * 2 * tokens * width * inner / clock.cpu_seconds)
    return best


def peak_mib(args: argparse.Namespace) -> float:
    """Most memory so far: of the GPU, or of the process (its peak while importing is far below a run's)."""
    import torch

    if args.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Counter:
    """Sequences and tokens that go through a model's backbone in forward passes."""

    def __init__(self) -> None:
        self.sequences = self.computed = self.real = 0

    def watch(self, model: Any) -> None:
        model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        from zephyr_ray.training.packed_attention import active_row

        tokens, mask, row = kwargs["input_ids"], kwargs.get("attention_mask"), active_row()
        self.computed += tokens.numel()
        self.real += tokens.numel() if mask is None else int(mask.sum())
        # a packed pair is one sequence, where a padded one is two
        self.sequences += len([s for s in row.segments if s.branches]) if row else len(tokens)


class Clock:
    """Seconds and CPU seconds of what is inside `with`."""

    def __enter__(self) -> Clock:
        self.begun = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: Any) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds, self.cpu_seconds = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]

    def under(self, name: str) -> dict[str, float]:
        return {f"{name}_seconds": self.seconds, f"{name}_cpu_seconds": self.cpu_seconds}


def make_model(args: argparse.Namespace) -> Any:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    small = {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "vocab_size": VOCAB,
    }
    shape: dict[str, Any] = small if args.shape == "12m" else {}  # Mistral's own values are those of the 7B model
    if args.layers:
        shape["num_hidden_layers"] = args.layers
    torch.manual_seed(0)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    with torch.device(args.device):
        config = MistralConfig(**shape, sliding_window=None, max_position_embeddings=2048, pad_token_id=0)
        return MistralForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa")


def options(args: argparse.Namespace, **more: Any) -> Any:
    from trl import DPOConfig

    return DPOConfig(
        output_dir="out",
        use_cpu=args.device == "cpu",
        bf16=args.device == "cuda",
        report_to=[],
        max_length=None,
        remove_unused_columns=False,
        gradient_checkpointing=args.device == "cuda",
        learning_rate=1e-6,
        save_strategy="no",
        logging_steps=10_000,
        disable_tqdm=True,
        **{"num_train_epochs": 1, **more},
    )


def tokenizer() -> Any:
    """TRL wants one; nothing is tokenized with it."""
    from zephyr_ray.recipe import Tiny
    from zephyr_ray.tiny.model import train_tokenizer as tiny_tokenizer

    return tiny_tokenizer(Tiny(), seed=0)


def adapter(args: argparse.Namespace) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM") if args.lora else None


def run_trl(args: argparse.Namespace, model: Any, pairs: list[dict[str, Any]], count: Counter) -> dict[str, float]:
    """TRL's trainer; only its tokenization is left out, and its reference pass timed."""
    import copy

    import datasets
    from trl import DPOTrainer

    reference = Clock()

    class Timed(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            with reference:
                return super()._precompute_ref_logps(*args, **kwargs)

    live = args.child != "trl_precompute"
    frozen = copy.deepcopy(model) if live and not args.lora else None
    for one in [model] if frozen is None else [model, frozen]:
        count.watch(one)
    with reference:  # TRL starts it again where it precomputes
        pass
    trainer = Timed(
        model=model,
        ref_model=frozen,
        args=options(
            args,
            per_device_train_batch_size=args.batch,
            gradient_accumulation_steps=args.global_batch // args.batch,
            precompute_ref_log_probs=not live,
        ),
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=tokenizer(),
        peft_config=adapter(args),
    )
    with Clock() as training:
        trainer.train()
    return training.under("train") | reference.under("reference")


def run_ours(args: argparse.Namespace, model: Any, pairs: list[dict[str, Any]], count: Counter) -> dict[str, float]:
    import datasets
    from trl.trainer.utils import add_fused_lm_head

    from zephyr_ray.training.logps import PackedScorer
    from zephyr_ray.training.packed_attention import choose_backend
    from zephyr_ray.training.packed_trainer import PackedDPOTrainer
    from zephyr_ray.training.packing import PackedRankPlan
    from zephyr_ray.training.plan import Plan
    from zephyr_ray.training.rows import Rows

    backend = choose_backend("auto", args.device)
    trained_forward = model.forward
    add_fused_lm_head(model)
    scorer = PackedScorer(model.eval(), None, args.budget, backend)
    count.watch(model)
    with Clock() as reference:
        parts = [scorer(pairs[start : start + 64]) for start in range(0, len(pairs), 64)]
    model.forward = trained_forward  # the trainer adds its own
    model.base_model._forward_hooks.clear()
    table, steps = datasets.Dataset.from_list(pairs), -(-len(pairs) // args.global_batch)
    trainer = PackedDPOTrainer(
        model=model,
        args=options(args, per_device_train_batch_size=1, precompute_ref_log_probs=True, max_steps=steps),
        train_dataset=table,
        processing_class=tokenizer(),
        peft_config=adapter(args),
    )
    names = ("ref_chosen_logps", "ref_rejected_logps")
    logps = {name: np.concatenate([part[side] for part in parts]) for side, name in enumerate(names)}
    rows = Rows(table, np.arange(len(pairs)), logps)
    plan = Plan(len(pairs), args.global_batch, 1, seed=0)
    trainer.follow(rows, PackedRankPlan(plan, 0, 1, rows.packed_lengths(), args.budget), backend)
    with Clock() as training:
        trainer.train()
    return training.under("train") | reference.under("reference")


if __name__ == "__main__":
    main()
