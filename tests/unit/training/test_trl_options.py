"""Every option of TRL's configurations is passed through or refused, and a command says so before it loads TRL."""

from __future__ import annotations

import dataclasses
import re

import pytest
from trl import DPOConfig, SFTConfig

from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.errors import UserError
from zephyr_ray.training.trl_options import PASSED, REFUSED, Stage, check_trl_options

GIVEN = ("model.path=/m", "preferences.train=pairs.jsonl", "dialogues.train=dialogues.jsonl")


@pytest.mark.parametrize(("stage", "config"), [("sft", SFTConfig), ("dpo", DPOConfig)])
def test_somebody_has_decided_on_every_option_of_the_installed_trl(stage: Stage, config: type) -> None:
    options = {field.name for field in dataclasses.fields(config)}
    assert PASSED[stage] | REFUSED[stage].keys() == options
    assert not PASSED[stage] & REFUSED[stage].keys()


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_refusal_names_the_option_and_fields_that_there_are(stage: Stage) -> None:
    recipe = loader.load([], ["sft.base=/raw"])
    for name in REFUSED[stage]:
        given = loader.load([], ["sft.base=/raw", f"{stage}.training.trl.{name}=1"])
        with pytest.raises(UserError, match=rf"^{stage}\.training\.trl\.{name}: not passed through; ") as caught:
            check_trl_options(stage, getattr(given, stage).training.trl)
        words = str(caught.value).split("; ", 1)[1].replace(",", " ").replace(":", " ").split()
        for field in (word.split("=")[0] for word in words if "." in word.strip(".")):
            value = recipe
            for part in field.split("."):
                value = getattr(value, part)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("beta=0.5", "set dpo.beta"),
        ("learning_rate=1", "set dpo.learning_rate"),
        ("dataloader_num_workers=4", "does not read it"),
        ("wieght_decay=0.1", "did you mean weight_decay?"),
        ("packing=true", "TRL's DPOConfig has no such option"),
    ],
)
def test_by_hand(option: str, says: str) -> None:
    recipe = loader.load([], [*GIVEN, f"dpo.training.trl.{option}"])
    with pytest.raises(UserError) as caught:
        check_trl_options("dpo", recipe.dpo.training.trl)
    assert says in str(caught.value)
    zephyr.select(recipe, ["tokenized"])  # a stage that is not asked for is not looked at
    with pytest.raises(UserError, match=re.escape(str(caught.value))):
        zephyr.select(recipe, ["dpo"])


def test_what_is_passed_through_passes() -> None:
    options = ["dpo.training.trl.ld_alpha=0.5", "sft.training.trl.loss_type=dft"]
    recipe = loader.load([], [*GIVEN, "sft.base=/raw", *options])
    zephyr.select(recipe, ["sft", "dpo"])
