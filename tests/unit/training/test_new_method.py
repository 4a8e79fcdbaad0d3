"""A method of one's own is a file, a section and a recipe: docs/extending.md's trains as a plain loop does."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from tests.unit.training.small_models import VOCAB, make_model, make_pairs
from tests.unit.training.test_dataset import write
from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.embedded.model import Sizes, train_tokenizer
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.schemas import TOKENIZED
from zephyr_ray.training import methods
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.worker import make_trainer

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"
PAIRS = make_pairs(6, 5)
BETA, MARGIN, RATE = 2.5, 0.5, 1e-3
RECIPE = {
    "model": {"path": "MODEL"},
    "preferences": {"train": "pairs.jsonl"},
    "simpo": {
        "beta": BETA,
        "margin": MARGIN,
        "learning_rate": RATE,
        "lr_scheduler": "constant",
        "warmup_ratio": 0,
        "global_batch": len(PAIRS),
        "max_steps": 2,
        "training": {"tokens_per_micro_batch": 100, "logging_steps": 1, "report_to": []},
    },
}


@pytest.fixture(autouse=True)
def _a_method_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's file, in a folder of its own that methods are found in too."""
    (text,) = (
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "METHOD =" in block
    )
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "simpo.py").write_text(text)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    monkeypatch.setenv("ZEPHYR_RAY_CACHE", str(tmp_path / "cache"))
    yield
    sys.modules.pop(f"{methods.__name__}.simpo", None)


@pytest.fixture
def recipe_file(tmp_path: Path) -> str:
    make_model("mistral").save_pretrained(tmp_path / "model")
    train_tokenizer(Sizes(vocab_size=VOCAB), seed=0).save_pretrained(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE).replace("MODEL", str(tmp_path / "model")))
    return str(tmp_path / "recipe.yaml")


def mean_log_prob(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(completion)), completion].mean()


def plain_losses(folder: str) -> list[float]:
    """SimPO, equation 6, a sequence at a time, with torch's own optimizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        each = []
        for pair in PAIRS:
            chosen, rejected = (
                mean_log_prob(model, pair["prompt_ids"], pair[f"{side}_ids"]) for side in ("chosen", "rejected")
            )
            each.append(-logsigmoid(BETA * (chosen - rejected) - MARGIN))
        loss = torch.stack(each).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_trains_as_a_plain_loop_does(tmp_path: Path, recipe_file: str) -> None:
    recipe: Any = loader.load([recipe_file], (), methods.recipe_type())
    none_cut = {f"{part}_truncated": 0 for part in ("prompt", "chosen", "rejected")}
    tokenized = write(
        tmp_path, "tokenized", TOKENIZED, [[{"pair_id": str(n), **pair, **none_cut} for n, pair in enumerate(PAIRS)]]
    )
    rows = methods.method_of("simpo").load_rows(recipe.simpo, tokenized, None)
    settings, source = (
        TrainingSettings("simpo", recipe.simpo, recipe.model, recipe.chat, 0),
        ModelSource(str(recipe.model.path)),
    )
    trainer = make_trainer(settings, source, rows, str(tmp_path / "out"), "cpu", 0, 1)
    trainer.args.save_strategy = "no"
    assert len(trainer.rank_plan.step(0)) > 1
    trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["loss"] for row in logged] == pytest.approx(plain_losses(source.path), abs=1e-5)
    assert {"rewards/margins", "grad_norm", "mean_token_accuracy"} <= logged[0].keys()
    assert trainer.seen.tolist() == [2] * len(PAIRS)


def test_its_stage_is_the_pipelines(recipe_file: str) -> None:
    """It reads the pairs and the model that DPO reads, and no reference; DPO's own stages are as without it."""
    recipe = loader.load([recipe_file], (), methods.recipe_type())
    assert zephyr.final_stages(recipe) == ["dpo", "simpo"]
    stages = {stage.name: stage for stage in zephyr.select(recipe, ["simpo"])}
    assert list(stages) == ["preferences", "tokenized", "simpo"]
    assert stages["simpo"].config["simpo"]["margin"] == MARGIN
    assert "tokens_per_micro_batch" not in stages["simpo"].config["simpo"]["training"]
    without = loader.load([recipe_file], ["simpo=null"], methods.recipe_type())
    assert zephyr.final_stages(without) == ["dpo"]
    with pytest.raises(UserError, match=r"^this recipe has no simpo section; add one$"):
        zephyr.select(without, ["simpo"])


def test_its_model_is_evaluated_on_held_out_pairs_too(recipe_file: str, tmp_path: Path) -> None:
    """Beside DPO's, whose stages are as without it, and with DPO's beta, because it meets no reference."""
    (tmp_path / "held_out.jsonl").write_text("{}")
    given = f"preferences.held_out={tmp_path / 'held_out.jsonl'}"
    recipe = loader.load([recipe_file], [given], methods.recipe_type())
    stages = {stage.name: stage for stage in zephyr.stages(recipe)}
    own = stages["evaluation/preferences_of/simpo"]
    assert own.config == stages["evaluation/preferences"].config
    assert {*own.inputs} - {*stages["evaluation/preferences"].inputs} == {"held_out_policies/simpo"}
    assert stages["held_out_policies/simpo"].inputs["simpo"] is stages["simpo"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("simpo.marign=1", r"unknown key simpo\.marign; did you mean margin\?"),
        ("simpo.beta=0", r"simpo\.beta: .*greater than 0"),
        ("simpoo={}", r"unknown key simpoo; did you mean simpo\?"),
        ("simpo.training.trl.ld_alpha=0.5", r"^simpo\.training\.trl\.ld_alpha: simpo takes no such option of TRL's$"),
        ("simpo.training.trl.seed=1", r"^simpo\.training\.trl\.seed: not passed through; set run\.seed$"),
    ],
)
def test_what_is_wrong_is_one_line(recipe_file: str, override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        zephyr.select(loader.load([recipe_file], [override], methods.recipe_type()), ["simpo"])


def test_a_method_without_padded_rows_says_so(tmp_path: Path, recipe_file: str) -> None:
    recipe: Any = loader.load([recipe_file], ["simpo.training.engine=padded"], methods.recipe_type())
    settings = TrainingSettings("simpo", recipe.simpo, recipe.model, recipe.chat, 0)
    with pytest.raises(UserError, match=r"^simpo\.training\.engine=padded: simpo trains on packed rows only$"):
        make_trainer(settings, ModelSource("model"), [0] * 6, str(tmp_path), "cpu", 0, 1)
