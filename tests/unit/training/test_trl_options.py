"""Every option of TRL's configurations is passed through or refused, and a command says so before it loads TRL."""

from __future__ import annotations

import dataclasses
import re

import pytest

from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.errors import UserError
from zephyr_ray.training.methods import Method, load_recipe, method_of, methods, recipe_type
from zephyr_ray.training.trl_options import check_trl_options, passed_by, refused_by

GIVEN = ("model.path=/m", "preferences.train=pairs.jsonl", "dialogues.train=dialogues.jsonl")


@pytest.mark.parametrize("method", methods().values(), ids=methods())
def test_somebody_has_decided_on_every_option_of_the_installed_trl(method: Method) -> None:
    options = {field.name for field in dataclasses.fields(method.trainers().config)}
    assert passed_by(method) | refused_by(method).keys() == options
    assert not passed_by(method) & refused_by(method).keys()


@pytest.mark.parametrize("stage", methods())
def test_a_refusal_names_the_option_and_fields_that_there_are(stage: str) -> None:
    sections = ["sft.base=/raw", "kto={}", "orpo={}", "reward_model={}"]
    recipe, with_methods = load_recipe([], sections), recipe_type()
    for name in refused_by(method_of(stage)):
        given = loader.load([], [*sections, f"{stage}.training.trl.{name}=1"], with_methods)
        with pytest.raises(UserError, match=rf"^{stage}\.training\.trl\.{name}: not passed through; ") as caught:
            check_trl_options(method_of(stage), getattr(given, stage).training.trl)
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
        ("packing=true", "dpo takes no such option of TRL's"),
    ],
)
def test_by_hand(option: str, says: str) -> None:
    recipe = loader.load([], [*GIVEN, f"dpo.training.trl.{option}"])
    with pytest.raises(UserError) as caught:
        check_trl_options(method_of("dpo"), recipe.dpo.training.trl)
    assert says in str(caught.value)
    zephyr.select(recipe, ["tokenized"])  # a stage that is not asked for is not looked at
    with pytest.raises(UserError, match=re.escape(str(caught.value))):
        zephyr.select(recipe, ["dpo"])


def test_what_is_passed_through_passes() -> None:
    options = ["dpo.training.trl.ld_alpha=0.5", "sft.training.trl.loss_type=dft"]
    recipe = loader.load([], [*GIVEN, "sft.base=/raw", *options])
    zephyr.select(recipe, ["sft", "dpo"])
