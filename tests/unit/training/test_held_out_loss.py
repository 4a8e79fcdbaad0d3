"""The loss on held-out dialogues is what plain transformers computes, in every way to train; it alarms where it rises.

The trainers are those that the stage makes of a recipe.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from tests.unit.training.small_models import VOCAB, make_dialogues, make_model
from zephyr_ray.config import loader
from zephyr_ray.embedded.model import Sizes, train_tokenizer
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.dataset import IGNORED, Rows
from zephyr_ray.training.held_out_loss import Rise, RowLosses, alarms, lines, rise
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.worker import make_trainer

pytestmark = pytest.mark.usefixtures("one_thread")

DIALOGUES = make_dialogues(32)
TRAINED, HELD_OUT = DIALOGUES[:13], DIALOGUES[13:]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_model("mistral").save_pretrained(folder)
    train_tokenizer(Sizes(vocab_size=VOCAB), seed=0).save_pretrained(folder)
    return str(folder)


def rows_of(dialogues: list[dict[str, Any]], loss_on: Any) -> Rows:
    return Rows(datasets.Dataset.from_list(dialogues), np.arange(len(dialogues)), loss_on=loss_on)


def trainer_of(model: str, folder: Path, *options: str, held_out: bool = True) -> Any:
    """The stage's trainer of one worker."""
    recipe = loader.load(
        [],
        [
            f"sft.base={model}",
            "sft.global_batch=5",
            "sft.warmup_ratio=0",
            "sft.max_steps=5",
            "sft.eval_steps=2",
            "sft.training.tokens_per_micro_batch=60",
            "sft.training.micro_batch=3",
            "sft.training.logging_steps=1",
            "sft.training.report_to=[]",
            *options,
        ],
    )
    assert recipe.sft is not None
    settings = TrainingSettings("sft", recipe.sft, recipe.model, recipe.chat, recipe.run.seed)
    asked = recipe.sft.loss_on
    others = rows_of(HELD_OUT, asked) if held_out else None
    return make_trainer(settings, ModelSource(model), rows_of(TRAINED, asked), str(folder), "cpu", 0, 1, others)


def plain_loss(model: Any, loss_on: str) -> RowLosses:
    """By transformers, a dialogue at a time."""
    losses, tokens = [], []
    for row in HELD_OUT:
        ids = torch.tensor([row["input_ids"]])
        learnt = torch.ones_like(ids).bool() if loss_on == "all" else torch.tensor([row["assistant_mask"]]).bool()
        labels = torch.where(learnt, ids, IGNORED)
        with torch.no_grad():
            logits = model.eval()(input_ids=ids).logits.float()
        losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum").item())
        tokens.append(int(learnt[0, 1:].sum()))
    return RowLosses(np.array(losses), np.array(tokens))


@pytest.mark.parametrize("engine", ["packed", "padded"])
@pytest.mark.parametrize(
    ("loss_on", "dtype", "tolerance"),
    [("all", "float32", 1e-5), ("assistant", "float32", 1e-5), ("assistant", "bfloat16", 4e-3)],
)
def test_before_between_and_after(
    model: str, tmp_path: Path, engine: str, loss_on: str, dtype: str, tolerance: float
) -> None:
    options = (f"sft.training.engine={engine}", f"sft.loss_on={loss_on}", f"model.dtype={dtype}")
    trainer = trainer_of(model, tmp_path, *options, "sft.learning_rate=0.01")
    trainer.args.save_strategy = "no"
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        before = plain_loss(trainer.model, loss_on)
    trainer.train()
    assert trainer.model.training
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        after = plain_loss(trainer.model, loss_on)
    summary = trainer.held_out.summary()
    assert [point["step"] for point in summary["curve"]] == [0, 2, 4, 5]
    assert (summary["rows"], summary["tokens"]) == (len(HELD_OUT), after.tokens.sum())
    assert summary["curve"][0]["loss"] == pytest.approx(before.mean, rel=tolerance)
    assert summary["curve"][-1]["loss"] == pytest.approx(after.mean, rel=tolerance)
    np.testing.assert_allclose(trainer.held_out.last.losses, after.losses, rtol=10 * tolerance)
    assert trainer.held_out.last.tokens.tolist() == after.tokens.tolist()


def test_evaluating_changes_nothing_and_a_resumed_training_goes_on_with_the_curve(model: str, tmp_path: Path) -> None:
    logs = {}
    for name, held_out in (("without", False), ("with", True)):
        trainer = trainer_of(model, tmp_path / name, "sft.training.checkpoint_steps=2", held_out=held_out)
        trainer.train()
        logs[name] = trainer.state.log_history
    trained = [[row for row in log if "loss" in row] for log in logs.values()]
    assert len(trained[0]) == 5
    assert trained[0] == trained[1]
    resumed = trainer_of(model, tmp_path / "resumed", "sft.training.checkpoint_steps=2")
    checkpoint = str(tmp_path / "with" / "checkpoint-4")
    resumed.held_out.restore(checkpoint)
    resumed.train(resume_from_checkpoint=checkpoint)
    names = ("step", "eval_loss", "loss", "grad_norm")
    ours, theirs = (
        [{name: row[name] for name in names if name in row} for row in log if "train_runtime" not in row]
        for log in (resumed.state.log_history, logs["with"])
    )
    assert ours == theirs
    assert resumed.held_out.summary() == trainer.held_out.summary()


def test_a_model_that_learns_its_rows_by_heart_alarms(model: str, tmp_path: Path) -> None:
    """The dialogues are random: there is nothing in them that others have."""
    trainer = trainer_of(model, tmp_path, "sft.learning_rate=0.03", "sft.max_steps=30", "sft.eval_steps=6")
    trainer.args.save_strategy = "no"
    trainer.train()
    summary = trainer.held_out.summary()
    lowest = min(point["loss"] for point in summary["curve"])
    assert summary["rise"]["value"] == pytest.approx(summary["curve"][-1]["loss"] - lowest, abs=1e-6)
    (said,) = alarms("sft", summary)
    assert said.startswith("ALARM: the held-out loss rose from")
    assert said in lines("sft", summary)


def test_a_rise_by_hand() -> None:
    # Differences 2 and 0 over 3 and 1 tokens: 0.5 a token; residuals 0.5 and -0.5; sqrt(0.5 * 2 / 1) / 4 = 0.25.
    after = RowLosses(np.array([5.0, 1.0]), np.array([3, 1]))
    assert rise(np.array([3.0, 1.0]), after) == pytest.approx(Rise(0.5, 1.96 * 0.25), rel=1e-4)
    assert rise(np.array([3.0]), RowLosses(np.array([5.0]), np.array([4]))) == Rise(0.5, math.inf)


@pytest.mark.parametrize(
    ("curve", "risen", "said"),
    [
        ([3.0, 1.0, 1.5], Rise(0.5, 0.1), "rose from 1.0000 (step 10) to 1.5000 at the end, by 0.5000 +- 0.1000"),
        ([1.0, 1.2, 1.5], Rise(0.5, 0.1), "rose from 1.0000 (before training) to 1.5000"),
        ([3.0, 1.0, 1.5], Rise(0.5, 0.6), None),
        ([3.0, 1.0, 0.5], Rise(0.0, 0.0), None),
        ([3.0, 1.0, 1.5], None, None),
    ],
)
def test_what_a_person_reads(curve: list[float], risen: Rise | None, said: str | None) -> None:
    points = [{"step": 10 * number, "loss": loss} for number, loss in enumerate(curve)]
    summary = {"rows": 7, "tokens": 1234, "curve": points, "rise": risen and risen._asdict()}
    first, *alarm = lines("sft", summary)
    assert first == (
        f"loss on 7 held-out rows (1,234 tokens): {curve[0]:.4f} before training, {min(curve):.4f} at its lowest "
        f"(step {10 * curve.index(min(curve))}), {curve[2]:.4f} after 20 steps"
    )
    assert alarm == alarms("sft", summary)
    assert len(alarm) == (said is not None)
    assert all(str(said) in line for line in alarm)
