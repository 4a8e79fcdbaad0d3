"""A method of training is one file, found by its name, and no other file of training knows one by name."""

from __future__ import annotations

import ast
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import zephyr_ray.training
from zephyr_ray.config import loader
from zephyr_ray.errors import UserError
from zephyr_ray.training.methods import method_of
from zephyr_ray.training.methods.sft import token_losses
from zephyr_ray.training.trl_options import PASSED

ROOT = Path(zephyr_ray.training.__file__).parent
NAMES = sorted(path.stem for path in (ROOT / "methods").glob("*.py") if path.stem != "__init__")


def test_a_method_has_the_name_of_its_file_section_and_options() -> None:
    assert set(NAMES) == PASSED.keys()
    recipe = loader.load([], ["sft.base=/raw"])
    for name in NAMES:
        method = method_of(name)
        assert method.name == name
        fields: Any = method.config
        known = {field.name for field in dataclasses.fields(fields)}
        assert method.options(getattr(recipe, name)).keys() <= known


def names_a_method(node: ast.AST) -> bool:
    """A comparison with a method's name, or a question whether something is a method's section."""
    if isinstance(node, ast.Compare):
        sides = [side for part in (node.left, *node.comparators) for side in ast.walk(part)]
        return any(isinstance(side, ast.Constant) and side.value in NAMES for side in sides)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return any(isinstance(part, ast.Name) and part.id.lower() in NAMES for part in ast.walk(node.args[1]))
    return False


def test_no_other_file_of_training_asks_which_method_it_is() -> None:
    assert names_a_method(ast.parse("stage == 'sft'", mode="eval").body)
    assert names_a_method(ast.parse("isinstance(section, (SFT, int))", mode="eval").body)
    others = [path for path in ROOT.rglob("*.py") if path.parent.name != "methods"]
    assert len(others) > 20
    found = [
        f"{path.name}:{getattr(node, 'lineno', 0)}"
        for path in others
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if names_a_method(node)
    ]
    assert found == []


def test_an_unknown_loss_is_refused_by_name() -> None:
    recipe = loader.load([], ["sft.base=/raw", "dpo.loss_type=[sigmoid, sigmod]"])
    with pytest.raises(UserError, match=r"^dpo\.loss_type=sigmod: not one of sigmoid, .*sft$"):
        method_of("dpo").options(recipe.dpo)


@pytest.mark.parametrize(("loss_type", "loss", "slope"), [("nll", math.log(4), -1.0), ("dft", math.log(4) / 4, -1 / 4)])
def test_a_tokens_loss_by_hand(loss_type: str, loss: float, slope: float) -> None:
    """Of a token with probability 1/4; its weight has no gradient."""
    log_prob: Any = torch.tensor([math.log(1 / 4)], requires_grad=True)
    found = token_losses(log_prob, loss_type)
    found.sum().backward()
    assert found.tolist() == pytest.approx([loss])
    assert log_prob.grad.tolist() == pytest.approx([slope])
