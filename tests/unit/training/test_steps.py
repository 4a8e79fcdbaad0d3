"""A packed step does not stall a GPU: it reads nothing back before a log, and the next ones are prepared meanwhile."""

import threading
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory
from trl import DPOConfig, SFTConfig
from trl.trainer import utils as trl_utils

from tests.unit.training.read_backs import ReadBacks, ReadBacksOfSteps
from tests.unit.training.small_models import make_dialogues, make_model, make_pairs
from zephyr_ray.errors import UserError
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.losses import LOSSES
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.dpo import PackedDPOTrainer
from zephyr_ray.training.trainers.sft import PackedSFTTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, LOGGED = 6, 3
OF_THE_HEAD = {"entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy"}
PLAN = Plan(20, 6, epochs=1, seed=0, max_steps=STEPS)


def make_trainer(kind: str, folder: Path, tokenizer: Any, **options: Any) -> Any:
    """A trainer whose steps have one to four micro-batches."""
    table = datasets.Dataset.from_list(make_pairs(20, 1) if kind == "dpo" else make_dialogues(20))
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "max_length": None,
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": LOGGED,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "max_steps": STEPS,
        **options,
    }
    trainer: Any
    if kind == "dpo":
        args: Any = DPOConfig(precompute_ref_log_probs=True, **settings)
        trainer = PackedDPOTrainer(make_model("mistral"), args=args, train_dataset=table, processing_class=tokenizer)
        names = ("ref_chosen_logps", "ref_rejected_logps")
        rows = Rows(table, np.arange(20), {name: -60 + np.sin(np.arange(20)) for name in names})
    else:
        args = SFTConfig(packing=False, dataset_kwargs={"skip_prepare_dataset": True}, **settings)
        trainer = PackedSFTTrainer(make_model("mistral"), args=args, train_dataset=table, processing_class=tokenizer)
        rows = Rows(table, np.arange(20), loss_on="assistant")
    trainer.follow(rows, PackedRankPlan(PLAN, 0, 1, rows.packed_lengths(), 90))
    return trainer


def logs(trainer: Any) -> list[dict[str, float]]:
    return [row for row in trainer.state.log_history if "loss" in row]


def prefetching() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


EVERY_LOSS = {"loss_type": sorted(LOSSES), "label_smoothing": 0.1, "ld_alpha": 0.5}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("dpo", {}), ("sft", {}), ("dpo", EVERY_LOSS), ("dpo", {"use_weighting": True}), ("sft", {"loss_type": "dft"})],
)
def test_a_step_that_is_not_logged_reads_nothing_back(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any]
) -> None:
    """Its data, forward and backward passes, clipping, optimizer and schedule, in the trainer's own loop.

    Where TRL sees a GPU it chooses the labels that its head computes; here it sees one.
    """
    trainer = make_trainer(kind, tmp_path, tokenizer, **options)
    monkeypatch.setattr(trl_utils, "_use_triton", lambda device: True)
    counter = ReadBacksOfSteps()
    trainer.add_callback(counter)
    trainer.train()
    assert max(len(step) for step in trainer.rank_plan) >= 2
    assert len(counter.steps) == STEPS
    logged = [number == 1 or number % LOGGED == 0 for number in range(1, STEPS + 1)]
    for is_logged, found in zip(logged, counter.steps, strict=True):
        assert bool(found) == is_logged, found


def test_the_counter_counts() -> None:
    values = torch.arange(4.0)
    ways = (
        lambda: values.sum().item(),
        lambda: bool(values.sum() > 0),
        lambda: values[:1].tolist(),
        lambda: values.cpu(),
        lambda: values.numpy(),
        lambda: values[values > 1],
        lambda: values.nonzero(),
        lambda: values.masked_select(values > 1),
        lambda: values.unique(),
        lambda: values.repeat_interleave(torch.arange(4)),
        lambda: torch.equal(values, values),
    )
    for way in ways:
        with ReadBacks() as counter:
            way()
        assert counter.found.total() == 1, counter.found
    with ReadBacks() as counter:
        assert values[torch.tensor([1, 2])].sum().shape == ()
    assert counter.found.total() == 0


@pytest.mark.parametrize("kind", ["dpo", "sft"])
def test_a_log_is_of_all_steps_but_of_the_head_of_its_own(tmp_path: Path, tokenizer: Any, kind: str) -> None:
    """Against a run that logs each step: means over three, and for the head's metrics the last of the three."""
    runs = []
    for every in (1, LOGGED):
        trainer = make_trainer(kind, tmp_path, tokenizer, logging_steps=every, logging_first_step=False)
        trainer.train()
        runs.append((logs(trainer), {name: weight.clone() for name, weight in trainer.model.named_parameters()}))
    (each, weights), (some, weights_too) = runs
    assert [row["step"] for row in some] == [3, 6]
    assert set(some[0]) == set(each[0])
    of_the_last = {"grad_norm", "learning_rate", "epoch", "step", "num_tokens"} | OF_THE_HEAD
    for number, row in enumerate(some):
        three = each[number * LOGGED : (number + 1) * LOGGED]
        for name, value in row.items():
            expected = three[-1][name] if name in of_the_last else np.mean([step[name] for step in three])
            assert value == pytest.approx(expected, rel=1e-6), name
    for name, weight in weights.items():
        assert torch.equal(weight, weights_too[name]), name


def test_the_next_step_is_prepared_in_a_thread_while_one_runs(tmp_path: Path, tokenizer: Any) -> None:
    """The plan's steps, in its order. No step ends before the next one's micro-batches are there."""
    trainer = make_trainer("dpo", tmp_path, tokenizer)
    plan = [[[slot.row for slot in part] for part in step] for step in trainer.rank_plan]
    there_by = np.cumsum([len(step) for step in plan])
    collate, step, changed = trainer.collate, trainer.training_step, threading.Condition()
    collated: list[str] = []
    trained: list[list[list[int]]] = []

    def collate_and_tell(rows: list[dict[str, Any]]) -> dict[str, Any]:
        with changed:
            collated.append(threading.current_thread().name)
            changed.notify_all()
        return collate(rows)

    def train_until_the_next_is_there(model: Any, inputs: dict[str, Any], items: Any = None) -> torch.Tensor:
        trained.append([batch["row"] for batch in inputs["micro_batches"]])
        expected = there_by[min(len(trained), STEPS - 1)]
        with changed:
            assert changed.wait_for(lambda: len(collated) >= expected, timeout=60)
        return step(model, inputs, items)

    trainer.collate, trainer.training_step = collate_and_tell, train_until_the_next_is_there
    trainer.train()
    assert trained == plan
    assert all(name.startswith("prefetch") for name in collated)
    assert not prefetching()


def test_a_gpu_gets_every_tensor_of_a_step_pinned(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch's data loader does to a step where there is a GPU; without one nothing can be pinned."""
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    step = next(iter(make_trainer("dpo", tmp_path, tokenizer).get_train_dataloader()))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    for batch in pin_memory(step)["micro_batches"]:
        values = [*batch.values(), *vars(batch["packed_row"]).values()]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        assert len(tensors) == 2 + 6  # references, and the row's own
        assert all(any(tensor is each for each in pinned) for tensor in tensors)


@pytest.mark.parametrize("place", ["collate", "training_step"])
def test_an_error_ends_training_as_it_is_and_the_thread(tmp_path: Path, tokenizer: Any, place: str) -> None:
    trainer = make_trainer("dpo", tmp_path, tokenizer)
    error, theirs, calls = UserError("row 7 is not whole"), getattr(trainer, place), []

    def fail_later(*args: Any, **kwargs: Any) -> Any:
        calls.append(place)
        if len(calls) > 4:
            raise error
        return theirs(*args, **kwargs)

    setattr(trainer, place, fail_later)
    with pytest.raises(UserError) as raised:
        trainer.train()
    assert raised.value is error
    assert not prefetching()


def test_a_resumed_run_takes_the_steps_that_are_left(tmp_path: Path, tokenizer: Any) -> None:
    """After step 4 of 6, from its checkpoint: the same losses, and the rows of two steps."""
    options = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 4}
    whole = make_trainer("dpo", tmp_path, tokenizer, **options)
    whole.train()
    rest = make_trainer("dpo", tmp_path, tokenizer, **options)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert rest._prefetched is None
    assert [row["loss"] for row in logs(rest)[4:]] == [row["loss"] for row in logs(whole)[4:]]
    expected = np.bincount(np.concatenate([PLAN.step_rows(step) for step in (4, 5)]), minlength=20)
    assert rest.seen.tolist() == expected.tolist()
