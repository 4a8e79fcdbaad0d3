"""Parts 4, 5 and 9: training by our packed engine beside unmodified TRL, same model, same pairs, same optimizer.

Weights are bfloat16 under autocast and so are Adam's moments: 7 billion of them with float32 copies do not fit one GPU.
Clocks start when the warm-up steps are done, which have all the lengths of the pairs and compile everything.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import datasets
import numpy as np
import torch
from dpo_pairs import make_groups, pairs_of
from dpo_runs import Counter
from gpu_parts.bench import Bench, Pairs, Record, compiled, peak_gib, release, round_all, seconds, synchronize
from gpu_parts.models import make_model
from transformers import PrinterCallback, TrainerCallback
from trl import DPOTrainer
from trl.trainer import dpo_trainer

from zephyr_ray.config.training import DPO
from zephyr_ray.training.dataset import GroupRows, Rows
from zephyr_ray.training.layers import compile_layers
from zephyr_ray.training.logps import PackedScorer
from zephyr_ray.training.packed.attention import segment_multiple
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan, rounded_up
from zephyr_ray.training.trainers.dpo import PackedDPOTrainer
from zephyr_ray.training.trainers.groups import GroupedDPOTrainer

H100_BF16_FLOPS = 989e12
COMPLETIONS = 4
WARM_EPOCHS, TIMED_EPOCHS = 1, 2
SPARE_SECONDS = (10.0, 40.0)
"""What has to be left beside a contender's own time, in the first turn and in the second."""

_hashes = itertools.count()
# TRL names its cache of reference log-probs by a hash of all weights, which takes it minutes for 7 billion.
dpo_trainer.hash_module = lambda module: f"not hashed {next(_hashes)}"


@dataclass(frozen=True)
class Contender:
    """One way to train.

    Attributes:
        batch: Pairs at a time, of TRL; our budget of tokens at a time otherwise.
        live: TRL's reference model runs beside the policy, as it does by default.
        grouped: Ours on prompts with all of their completions.
    """

    name: str
    ours: bool
    batch: int
    recomputes: bool
    live: bool = False
    compiles_layers: bool = False
    grouped: bool = False


@dataclass(frozen=True)
class Task:
    """What the contenders of a part train: a model's depth, all weights or an adapter, the pairs and their batch; and
    the groups that the pairs are of, where they are more than pairs."""

    layers: int
    pairs: Pairs
    global_batch: int
    lora: bool = False
    optimizer: str = "adamw_torch_fused"
    groups: list[dict[str, Any]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return len(self.pairs) // self.global_batch


def full_training(bench: Bench) -> Iterator[Record]:
    """All weights of a model of 2 billion."""
    sizes = bench.sizes
    task = Task(sizes.layers, bench.pairs, sizes.global_batch)
    contenders = [
        Contender("ours", True, sizes.budget, False),
        Contender("TRL as it comes, batch 8", False, min(8, sizes.global_batch), True, live=True),
        Contender("TRL precomputed, not recomputing, batch 4", False, 4, False),
        Contender("ours, recomputing", True, 2 * sizes.budget, True),
        Contender("TRL precomputed, not recomputing, batch 2", False, 2, False),
    ]
    yield from race(bench, task, contenders, {"TRL as it comes": 2.5, "TRL precomputed": 1.3})


def lora_training(bench: Bench) -> Iterator[Record]:
    """An adapter of rank 16 on a model of 7 billion."""
    sizes = bench.sizes
    task = Task(sizes.lora_layers, bench.pairs[: sizes.lora_pairs], sizes.lora_global_batch, lora=True)
    contenders = [
        Contender("ours, recomputing", True, sizes.budget, True),
        Contender("ours", True, sizes.budget // 2, False),
        Contender("TRL precomputed, recomputing, batch 4", False, min(4, sizes.lora_global_batch), True),
        Contender("TRL as it comes, batch 2", False, 2, True, live=True),
        Contender("TRL precomputed, not recomputing, batch 1", False, 1, False),
    ]
    yield from race(bench, task, contenders, {"TRL as it comes": 2.5, "TRL precomputed": 1.3})


def grouped_training(bench: Bench) -> Iterator[Record]:
    """As `full_training`, with every two of a prompt's four completions as a pair."""
    sizes = bench.sizes
    groups = make_groups(bench.pairs[: sizes.prompts], COMPLETIONS)
    pairs = pairs_of(groups)
    per_prompt = len(pairs) // len(groups)
    task = Task(sizes.layers, pairs, sizes.prompts_per_step * per_prompt, groups=groups)
    contenders = [
        Contender("ours, a prompt with all of its completions", True, sizes.budget, False, grouped=True),
        Contender("pair by pair, ours", True, sizes.budget, False),
        Contender("TRL precomputed, not recomputing, batch 4", False, 4, False),
    ]
    yield from race(bench, task, contenders, {"pair by pair": 1.8, "TRL precomputed": 1.8})


def race(bench: Bench, task: Task, contenders: list[Contender], goals: dict[str, float]) -> Iterator[Record]:
    """The contenders one after the other, a second time as far as there is time, and our best rate over TRL's."""
    rates: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    costs: dict[str, float] = {}
    for turn in range(2):
        for contender in contenders:
            cost = costs.get(contender.name, 10.0)
            if turn and contender.name not in rates:
                continue  # it failed the first time
            if bench.left() < cost + SPARE_SECONDS[turn]:
                yield {"contender": contender.name, "skipped": f"{bench.left():.0f} s are left"}
                continue
            begun = time.monotonic()
            record = attempt(bench, task, contender)
            costs[contender.name] = time.monotonic() - begun
            if "pairs_per_s" in record:
                rates.setdefault(contender.name, []).append(record["pairs_per_s"])
                peaks[contender.name] = record.get("peak_gib", 0.0)
            yield {"turn": turn, **record, "run_seconds": round(costs[contender.name], 1)}
    yield ratios({name: statistics.median(found) for name, found in rates.items()}, peaks, goals)


def ratios(rates: dict[str, float], peaks: dict[str, float], goals: dict[str, float]) -> Record:
    """Our fastest contender's pairs/s over those of the fastest of each kind of TRL's, and its memory over theirs."""

    def fastest(kind: str) -> str | None:
        return max((name for name in rates if name.startswith(kind)), key=lambda name: rates[name], default=None)

    ours, found, memory = fastest("ours"), {}, {}
    for kind in goals:
        peer = fastest(kind)
        if ours and peer:
            found[kind] = round(rates[ours] / rates[peer], 3)
            memory[kind] = round(peaks[ours] / peaks[peer], 3) if peaks[peer] else None
    checks = {kind: found.get(kind, 0.0) >= goal for kind, goal in goals.items()}
    return {
        "pairs_per_s": round_all(rates, 3),
        "ours_over": found,
        "memory_over": memory,
        "checks": checks,
        "passed": all(checks.values()),
    }


def attempt(bench: Bench, task: Task, contender: Contender) -> Record:
    """The contender's figures, or its error: the others go on."""
    try:
        return {"contender": contender.name, **measure(bench, task, contender)}
    except torch.OutOfMemoryError as error:
        return {"contender": contender.name, "error": str(error)[:300]}
    except Exception:  # a contender's boundary
        return {"contender": contender.name, "error": traceback.format_exc()[-2000:]}
    finally:
        release()


def measure(bench: Bench, task: Task, contender: Contender) -> Record:
    release()
    model, count, clock = make_model(bench, task.layers, torch.bfloat16), Counter(), StepClock(task)
    flops = Flops(model, task)
    if contender.compiles_layers:
        compile_layers(model)  # the reference is computed with them too, as the reference stage does
    with tempfile.TemporaryDirectory() as folder:
        trainer, reference_seconds = build(bench, task, contender, model, count, folder)
        trainer.add_callback(clock)
        trainer.train()
    about = {name: value for name, value in asdict(contender).items() if name != "name"}
    return round_all(about | figures(bench, task, contender, clock, count, flops, trainer)) | {
        "reference_seconds": round(reference_seconds, 3),
        **peak_gib(),
    }


def figures(
    bench: Bench, task: Task, contender: Contender, clock: StepClock, count: Counter, flops: Flops, trainer: Any
) -> Record:
    step = statistics.median(clock.steps)
    useful = sum(len(ids) for pair in task.pairs for ids in pair.values())
    pairs_per_s = len(task.pairs) * TIMED_EPOCHS / sum(clock.steps)
    per_pair = flops.per_pair(trainer.model)
    record = {
        "pairs_per_s": pairs_per_s,
        "useful_tokens_per_s": pairs_per_s * useful / len(task.pairs),
        "step_seconds": [round(value, 4) for value in clock.steps],
        "step_median": step,
        "mfu": per_pair * pairs_per_s / H100_BF16_FLOPS,
        "computed_per_useful_token": count.computed / (useful * (WARM_EPOCHS + TIMED_EPOCHS)),
        "compiled_in_clock": clock.compiled,
        "first_loss_less_ln2": trainer.state.log_history[0]["loss"] - math.log(2),
    }
    if contender.ours:
        record["hfu"] = (per_pair + flops.again_per_pair(trainer.model) * contender.recomputes) * pairs_per_s
        record["hfu"] /= H100_BF16_FLOPS
    if "product_flops" in bench.found:
        record["of_product_rate"] = per_pair * pairs_per_s / bench.found["product_flops"]
    return record


class StepClock(TrainerCallback):
    """Seconds of each timed step, from the end of the one before: fetching the pairs is in them."""

    def __init__(self, task: Task):
        self.warm = WARM_EPOCHS * task.steps_per_epoch
        self.steps: list[float] = []
        self.compiled = self.before = 0
        self.last = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step < self.warm:
            return
        synchronize()
        now = time.perf_counter()
        if state.global_step == self.warm:
            self.before = compiled()
        else:
            self.steps.append(now - self.last)
            self.compiled = compiled() - self.before
        self.last = now


class Flops:
    """What a pair's prompt and completions, each computed once, cost a model: 2 FLOPs for each weight and token
    forward, 2 for the gradient of what comes in, 2 for the gradient of a weight that is trained; and attention's."""

    def __init__(self, model: Any, task: Task):
        self.layer = sum(weight.numel() for weight in model.model.layers.parameters() if weight.ndim == 2)
        self.head = model.lm_head.weight.numel()
        self.width = model.config.num_hidden_layers * model.config.num_attention_heads * model.config.head_dim
        self.task = task

    def per_pair(self, model: Any) -> float:
        trained = self._adapter(model)
        layer = 4 * self.layer + 6 * trained if self.task.lora else 6 * self.layer
        return self._mean(layer, 4 * self.head if self.task.lora else 6 * self.head, 12)

    def again_per_pair(self, model: Any) -> float:
        """What recomputing the layers adds."""
        return self._mean(2 * (self.layer + self._adapter(model)), 0, 4)

    def _adapter(self, model: Any) -> int:
        return sum(weight.numel() for weight in model.parameters() if weight.requires_grad) if self.task.lora else 0

    def _mean(self, layer: float, head: float, attention: int) -> float:
        total = 0.0
        for pair in self.task.pairs:
            prompt, *answers = (len(pair[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
            seen = prompt**2 / 2 + sum(answer * prompt + answer**2 / 2 for answer in answers)
            total += layer * (prompt + sum(answers)) + head * sum(answers) + attention * self.width * seen
        return total / len(self.task.pairs)


def build(bench: Bench, task: Task, contender: Contender, model: Any, count: Counter, folder: str) -> tuple[Any, float]:
    """A trainer and the seconds that the reference's log-probs of all pairs took."""
    make = build_grouped if contender.grouped else build_ours if contender.ours else build_trl
    trainer, reference_seconds = make(bench, task, contender, model, count, folder)
    trainer.remove_callback(PrinterCallback)
    return trainer, reference_seconds


def build_ours(
    bench: Bench, task: Task, contender: Contender, model: Any, count: Counter, folder: str
) -> tuple[Any, float]:
    (chosen, rejected), reference_seconds = reference_logps(
        model, lambda scorer: scorer(task.pairs), contender.batch, bench.backend
    )
    table = datasets.Dataset.from_list(task.pairs)
    logps = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    rows = Rows(table, np.arange(len(task.pairs)), logps)
    trainer = packed_trainer(PackedDPOTrainer, bench, task, contender, model, count, folder, rows, task.global_batch)
    return trainer, reference_seconds


def build_grouped(
    bench: Bench, task: Task, contender: Contender, model: Any, count: Counter, folder: str
) -> tuple[Any, float]:
    groups = task.groups or []
    sums, reference_seconds = reference_logps(
        model, lambda scorer: scorer.completions(groups), contender.batch, bench.backend
    )
    rows = GroupRows(datasets.Dataset.from_list(groups), np.arange(len(groups)), np.concatenate(sums))
    batch = task.global_batch * len(groups) // len(task.pairs)
    trainer = packed_trainer(GroupedDPOTrainer, bench, task, contender, model, count, folder, rows, batch)
    trainer.section = DPO()
    return trainer, reference_seconds


def packed_trainer(
    kind: Any,
    bench: Bench,
    task: Task,
    contender: Contender,
    model: Any,
    count: Counter,
    folder: str,
    rows: Rows,
    global_batch: int,
) -> Any:
    count.watch(model)
    trainer = kind(
        model=model,
        args=options(bench, task, contender, folder, per_device_train_batch_size=1),
        train_dataset=rows.table,
        processing_class=tokenizer(),
        peft_config=adapter(task),
    )
    plan = Plan(len(rows), global_batch, WARM_EPOCHS + TIMED_EPOCHS, seed=0)
    align = segment_multiple(bench.backend, torch.bfloat16)
    lengths = rounded_up(rows.packed_lengths(), align)
    rank_plan = PackedRankPlan(plan, 0, 1, lengths, contender.batch, rows.loss_weights())
    trainer.follow(rows, rank_plan, bench.backend, align)
    return trainer


def reference_logps(model: Any, score: Callable[[PackedScorer], Any], budget: int, backend: Any) -> tuple[Any, float]:
    """What the reference stage's scorer gives, and its seconds; the model is left as it was."""
    from trl.trainer.utils import add_fused_lm_head

    forward, hooks = model.forward, list(model.base_model._forward_hooks)
    add_fused_lm_head(model)
    scorer = PackedScorer(model.eval(), None, budget, backend)
    found = score(scorer)  # and whatever there is to compile
    taken = seconds(lambda: score(scorer))
    model.forward = forward
    for key in set(model.base_model._forward_hooks) - set(hooks):
        del model.base_model._forward_hooks[key]
    return found, taken


def build_trl(
    bench: Bench, task: Task, contender: Contender, model: Any, count: Counter, folder: str
) -> tuple[Any, float]:
    reference_seconds = 0.0

    class Tokenized(DPOTrainer):
        """TRL's trainer on pairs that are tokenized already, its reference pass timed."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal reference_seconds
            found: list[Any] = []
            reference_seconds = seconds(
                lambda: found.append(super(Tokenized, self)._precompute_ref_logps(*args, **kwargs))
            )
            return found[0]

    frozen = copy.deepcopy(model) if contender.live and not task.lora else None
    for one in [model] if frozen is None else [model, frozen]:
        count.watch(one)
    trainer = Tokenized(
        model=model,
        ref_model=frozen,
        args=options(
            bench,
            task,
            contender,
            folder,
            per_device_train_batch_size=contender.batch,
            gradient_accumulation_steps=task.global_batch // contender.batch,
        ),
        train_dataset=datasets.Dataset.from_list(task.pairs),
        processing_class=tokenizer(),
        peft_config=adapter(task),
    )
    count.computed = 0  # without the reference's pass
    return trainer, reference_seconds


def options(bench: Bench, task: Task, contender: Contender, folder: str, **more: Any) -> Any:
    from trl import DPOConfig

    return DPOConfig(
        output_dir=folder,
        use_cpu=not bench.on_gpu,
        bf16=True,
        optim=task.optimizer,
        max_steps=(WARM_EPOCHS + TIMED_EPOCHS) * task.steps_per_epoch,
        precompute_ref_log_probs=not contender.live,
        gradient_checkpointing=contender.recomputes,
        report_to=[],
        max_length=None,
        remove_unused_columns=False,
        learning_rate=1e-6,
        save_strategy="no",
        logging_steps=10_000,
        logging_first_step=True,
        disable_tqdm=True,
        **more,
    )


def adapter(task: Task) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM") if task.lora else None


def tokenizer() -> Any:
    """TRL wants one; nothing is tokenized with it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    entries = {"<unk>": 0, "<s>": 1, "</s>": 2}
    raw = Tokenizer(models.WordLevel(entries, unk_token="<unk>"))
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)
