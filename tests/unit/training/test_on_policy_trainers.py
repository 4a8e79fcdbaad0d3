"""GRPO and RLOO by TRL's trainers on the plan's prompts: where they begin, what they draw, and how they go on."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from tests.unit.training.small_models import VOCAB, make_model
from zephyr_ray.embedded.model import Sizes, train_tokenizer
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.methods import load_recipe
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.worker import make_trainer

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["owl", "wren", "crow", "finch", "robin"]
PROMPTS = [{"messages": [{"role": "user", "content": f"Say {word}."}]} for word in WORDS]
ROWS = Rows(datasets.Dataset.from_list(PROMPTS), np.arange(len(PROMPTS)))
SAME = ("loss", "grad_norm", "reward", "kl", "completions/mean_length")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_model("mistral").save_pretrained(folder)
    train_tokenizer(Sizes(vocab_size=VOCAB), seed=0).save_pretrained(folder)
    return str(folder)


class Letters:
    """Rewards completions by their letters, one of them by nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, prompts: Any, completions: Any) -> list[float | None]:
        self.asked += [(prompt[-1]["content"], text) for prompt, text in zip(prompts, completions, strict=True)]
        return [None, *(float(len(text)) for text in completions[1:])]


def trainer_of(model: str, folder: Path, method: str, *more: str) -> tuple[Any, Letters]:
    section = {"completions": 4, "max_new_tokens": 6, "global_batch": 2, "max_steps": 4, "learning_rate": 1e-2}
    training = {"micro_batch": 4, "logging_steps": 1, "checkpoint_steps": 2, "report_to": []}
    given = {**section, "warmup_ratio": 0, "lr_scheduler": "constant", "training": training}
    recipe: Any = load_recipe([], [f"model.path={model}", f"{method}={json.dumps(given)}", *more])
    settings = TrainingSettings(method, getattr(recipe, method), recipe.model, recipe.chat, recipe.run.seed)
    letters = Letters()
    made = make_trainer(settings, ModelSource(model), ROWS, str(folder), "cpu", 0, 1, reward=lambda device: letters)
    return made, letters


def logged(trainer: Any) -> list[dict[str, float]]:
    return [row for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    ("method", "more"),
    [("grpo", ()), ("grpo", ("grpo.num_iterations=2", "grpo.training.checkpoint_steps=3")), ("rloo", ())],
    ids=("grpo", "iterations", "rloo"),
)
def test_it_completes_the_plans_prompts_and_goes_on_from_a_checkpoint_as_it_was(
    model: str, tmp_path: Path, method: str, more: tuple[str, ...]
) -> None:
    trainer, letters = trainer_of(model, tmp_path / "whole", method, *more)
    trainer.train()
    whole, plan = logged(trainer), trainer.rank_plan.plan
    rows = [int(row) for step in range(0, 4, plan.iterations) for row in plan.step_rows(step)]
    wanted = [PROMPTS[row]["messages"][-1]["content"] for row in rows]
    assert [prompt for prompt, _ in letters.asked] == list(
        itertools.chain.from_iterable(itertools.repeat(prompt, 4) for prompt in wanted)
    )
    assert trainer.seen.tolist() == plan.times_seen().tolist()
    assert whole[0]["kl"] == pytest.approx(0, abs=1e-6)  # it begins as its reference
    assert whole[-1]["kl"] > 1e-5
    drawn = [text for _, text in letters.asked[1:8]]  # the first one has no reward
    assert whole[0]["reward"] == pytest.approx(np.mean([len(text) for text in drawn]))
    assert 1 <= whole[0]["completions/mean_length"] <= 6

    saved = min((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for state in saved.glob("rng_state*"):  # what is drawn does not depend on it
        state.unlink()
    resumed, again = trainer_of(model, tmp_path / "resumed", method, *more)
    resumed.train(resume_from_checkpoint=str(saved))
    for before, after in zip(whole, logged(resumed), strict=True):
        if plan.iterations == 1:  # else it draws anew for what is left of a draw's steps
            assert [after[name] for name in SAME] == pytest.approx([before[name] for name in SAME], abs=1e-6)
    done = int(saved.name.split("-")[1])
    left = [plan.step_rows(step) for step in range(done, 4)]
    assert resumed.seen.tolist() == np.bincount(np.concatenate(left), minlength=5).tolist()
    assert {prompt for prompt, _ in again.asked} == {
        PROMPTS[row]["messages"][-1]["content"] for row in np.concatenate(left)
    }


def test_prompts_that_leave_no_room_are_refused_before_anything_is_drawn(model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^prompts: 5 of 5 have more than 0 tokens \(the longest \d+\), which max_new"):
        trainer_of(model, tmp_path, "grpo", "grpo.max_new_tokens=256")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("completions=1", r"grpo\.completions: Input should be greater than or equal to 2"),
        ("beta=-1", r"grpo\.beta: Input should be greater than or equal to 0"),
        ("sampler=vllm", r"sampler=vllm shares the GPU of each worker, and training\.gpus_per_worker=0 has none; set"),
        ("training.workers=3", r"training\.workers=3 for global_batch=32: each worker completes as many prompts; set"),
        ("training.workers=[2, 4]", r"training\.workers=3 for global_batch=32"),
        ("training.compile=true", r"training\.compile=true is for packed rows"),
        ("loss_type=sapo", r"grpo\.loss_type: Input should be 'grpo', 'dapo' or 'dr_grpo'"),
    ],
)
def test_a_wrong_value_is_one_line(given: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load_recipe([], [f"grpo.{given}"])
    assert "\n" not in str(caught.value)
