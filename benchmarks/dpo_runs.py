"""One contender of benchmarks/dpo_engine.py: trains on the folder's groups.json, measured, in a process of its own."""

from __future__ import annotations

import argparse
import copy
import gc
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from dpo_pairs import VOCAB, pairs_of

Pairs = list[dict[str, list[int]]]
Groups = list[dict[str, Any]]
OURS = ("ours", "grouped")
RECOMPUTES = ("trl_default", "trl", "trl_precompute")
PRECOMPUTES = ("trl_precompute", "trl_precompute_fast")


def run_contender(args: argparse.Namespace) -> dict[str, float]:
    """Seconds, tokens and MiB of one epoch of the contender `args.child`."""
    import torch

    torch.set_num_threads(args.threads)
    groups: Groups = json.loads(Path("groups.json").read_text())
    groups = groups[: args.limit and args.limit // args.pairs_per_prompt]
    warm_up(args, groups)
    held = start_of_memory(args)
    model, count = make_model(args), Counter()
    measured, pairs = train(args, model, groups, count), pairs_of(groups)
    useful = sum(len(ids) for pair in pairs for ids in pair.values())
    measured |= {
        "pairs": len(pairs),
        "useful_tokens": useful,
        "computed_tokens": count.computed,
        "padding_share": 1 - int(count.real) / count.computed,
        "forwards": count.sequences,
        "peak_mib": peak_mib(args),
        "training_mib": peak_mib(args) - held,
    }
    if args.device == "cuda":
        weights = sum(weight.numel() for name, weight in model.named_parameters() if "embed_tokens" not in name)
        measured["mfu"] = 6 * weights * useful / (measured["train_seconds"] * args.peak_flops)
    elif not args.lora:
        measured["over_floor"] = measured["train_cpu_seconds"] / floor_seconds(model, pairs)
    return measured


def train(args: argparse.Namespace, model: Any, groups: Groups, count: Counter) -> dict[str, float]:
    if args.child == "grouped":
        return run_grouped(args, model, groups, count)
    return (run_ours if args.child == "ours" else run_trl)(args, model, pairs_of(groups), count)


def warm_up(args: argparse.Namespace, groups: Groups) -> None:
    """Loads every library and starts every thread that a run needs, on a tiny model and two short prompts."""
    tiny = copy.copy(args)
    tiny.shape, tiny.layers, tiny.global_batch, tiny.batch = "tiny", None, 2 * args.pairs_per_prompt, 1
    short = [
        each | {"prompt_ids": each["prompt_ids"][:16], "completions": [ids[:16] for ids in each["completions"]]}
        for each in groups[:2]
    ]
    train(tiny, make_model(tiny), short, Counter())
    gc.collect()


def start_of_memory(args: argparse.Namespace) -> float:
    """MiB held now; peaks count from here."""
    import torch

    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib(args)


def peak_mib(args: argparse.Namespace) -> float:
    """Most memory since `start_of_memory`, of the GPU or of the process."""
    import torch

    if args.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def floor_seconds(model: Any, pairs: Pairs) -> float:
    """CPU seconds of one pass, forward and backward, over the useful tokens' matrix products alone."""
    config = model.config
    layers = sum(weight.numel() for weight in model.base_model.layers.parameters() if weight.ndim == 2)
    width = config.num_hidden_layers * config.hidden_size
    flops = 0.0
    for pair in pairs:
        prompt, *branches = (len(pair[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        seen = prompt**2 / 2 + sum(branch * prompt + branch**2 / 2 for branch in branches)
        flops += 6 * (layers * (prompt + sum(branches)) + model.lm_head.weight.numel() * sum(branches))
        flops += 12 * width * seen
    return flops / matmul_rate(config)


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


class Counter:
    """Sequences and tokens that go through a model's backbone in forward passes."""

    def __init__(self) -> None:
        self.sequences = self.computed = 0
        self.real: Any = 0  # a tensor where there are masks: to look at it would wait for the GPU

    def watch(self, model: Any) -> None:
        model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        from zephyr_ray.training.packed.attention import active_row

        tokens, mask, row = kwargs["input_ids"], kwargs.get("attention_mask"), active_row()
        self.computed += tokens.numel()
        self.real = self.real + (tokens.numel() if mask is None else mask.sum())
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

    head_dim = 128 if args.device == "cuda" else 64  # a kernel is compiled for it
    tiny = {"hidden_size": 2 * head_dim, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tiny |= {"num_key_value_heads": 1, "vocab_size": VOCAB}
    small = {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "vocab_size": VOCAB,
    }
    shapes: dict[str, dict[str, Any]] = {"tiny": tiny, "12m": small, "mistral-7b": {}}
    shape = shapes[args.shape]  # Mistral's own values are those of the 7B model
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
        gradient_checkpointing=args.child in RECOMPUTES or (args.child in OURS and args.checkpointing),
        learning_rate=1e-6,
        save_strategy="no",
        logging_steps=10_000,
        disable_tqdm=True,
        **{"num_train_epochs": 1, **more},
    )


def tokenizer() -> Any:
    """TRL wants one; nothing is tokenized with it."""
    from zephyr_ray.embedded.model import Sizes
    from zephyr_ray.embedded.model import train_tokenizer as tiny_tokenizer

    return tiny_tokenizer(Sizes(), seed=0)


def adapter(args: argparse.Namespace) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM") if args.lora else None


def run_trl(args: argparse.Namespace, model: Any, pairs: Pairs, count: Counter) -> dict[str, float]:
    """TRL's trainer; only its tokenization is left out, and its reference pass timed."""
    import datasets
    from trl import DPOTrainer

    reference = Clock()

    class Timed(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            with reference:
                return super()._precompute_ref_logps(*args, **kwargs)

    live = args.child not in PRECOMPUTES
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


def run_ours(args: argparse.Namespace, model: Any, pairs: Pairs, count: Counter) -> dict[str, float]:
    import datasets

    from zephyr_ray.training.dataset import Rows
    from zephyr_ray.training.trainers.dpo import PackedDPOTrainer

    scorer, backend = prepare(args, model, count)
    with Clock() as reference:
        parts = [scorer(pairs[start : start + 64]) for start in range(0, len(pairs), 64)]
    table, names = datasets.Dataset.from_list(pairs), ("ref_chosen_logps", "ref_rejected_logps")
    logps = {name: np.concatenate([part[side] for part in parts]) for side, name in enumerate(names)}
    rows = Rows(table, np.arange(len(pairs)), logps)
    trainer = make_trainer(args, PackedDPOTrainer, model, table)
    follow(args, trainer, rows, args.global_batch, scorer.align, backend)
    with Clock() as training:
        trainer.train()
    return training.under("train") | reference.under("reference")


def run_grouped(args: argparse.Namespace, model: Any, groups: Groups, count: Counter) -> dict[str, float]:
    import datasets

    from zephyr_ray.config.training import DPO
    from zephyr_ray.training.dataset import GroupRows
    from zephyr_ray.training.trainers.groups import GroupedDPOTrainer

    scorer, backend = prepare(args, model, count)
    with Clock() as reference:
        parts = [sums for start in range(0, len(groups), 64) for sums in scorer.completions(groups[start : start + 64])]
    table = datasets.Dataset.from_list(groups)
    rows = GroupRows(table, np.arange(len(groups)), np.concatenate(parts))
    trainer = make_trainer(args, GroupedDPOTrainer, model, table)
    trainer.section = DPO()
    follow(args, trainer, rows, args.global_batch // args.pairs_per_prompt, scorer.align, backend)
    with Clock() as training:
        trainer.train()
    return training.under("train") | reference.under("reference")


def prepare(args: argparse.Namespace, model: Any, count: Counter) -> tuple[Any, Any]:
    """The reference stage's scorer of a model, and how attention is computed."""
    from trl.trainer.utils import add_fused_lm_head

    from zephyr_ray.training.logps import PackedScorer
    from zephyr_ray.training.packed.attention import choose_backend

    backend = choose_backend("auto", args.device)
    add_fused_lm_head(model)
    scorer = PackedScorer(model.eval(), None, args.budget, backend)
    count.watch(model)
    return scorer, backend


def make_trainer(args: argparse.Namespace, kind: Any, model: Any, table: Any) -> Any:
    del model.forward  # the scorer's; the trainer adds its own, and what it hooks
    model.base_model._forward_hooks.clear()
    return kind(
        model=model,
        args=options(args, per_device_train_batch_size=1, precompute_ref_log_probs=True),
        train_dataset=table,
        processing_class=tokenizer(),
        peft_config=adapter(args),
    )


def follow(args: argparse.Namespace, trainer: Any, rows: Any, global_batch: int, align: int, backend: Any) -> None:
    """Gives a trainer the plan of one epoch."""
    from zephyr_ray.training.sampler import Plan
    from zephyr_ray.training.token_batching import PackedRankPlan, rounded_up

    plan = Plan(len(rows), global_batch, 1, seed=0)
    trainer.args.max_steps = plan.steps
    lengths = rounded_up(rows.packed_lengths(), align)
    trainer.follow(rows, PackedRankPlan(plan, 0, 1, lengths, args.budget, rows.loss_weights()), backend, align)
