"""A method of training is one file, found by its name, and no other file asks which method it is."""

from __future__ import annotations

import ast
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import zephyr_ray
from zephyr_ray.config import loader
from zephyr_ray.config.model import Chat, ModelSection
from zephyr_ray.config.training import DPO
from zephyr_ray.errors import UserError
from zephyr_ray.training.methods import load_recipe, method_of, methods
from zephyr_ray.training.reference_guard import FirstStepGuard, refusal
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.trainers.sft import token_losses

ROOT = Path(zephyr_ray.__file__).parent
NAMES = sorted(path.stem for path in (ROOT / "training" / "methods").glob("*.py") if path.stem != "__init__")


def test_a_method_has_the_name_of_its_file_and_section_and_trls_names_for_its_options() -> None:
    assert sorted(methods()) == NAMES
    recipe = load_recipe([], ["sft.base=/raw", "kto={}", "orpo={}", "reward_model={}"])
    for name, method in methods().items():
        assert method.name == name
        section = getattr(recipe, name)
        assert type(section) is method.section
        known = {field.name for field in dataclasses.fields(method.trainers().config)}
        assert method.options(section).keys() <= known


def test_reading_the_methods_loads_no_library() -> None:
    """Every command reads them."""
    code = (
        "import sys; from zephyr_ray.training.methods import methods; print(sorted(methods())); "
        "print({'torch', 'trl', 'transformers', 'ray', 'datasets'} & sys.modules.keys())"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split("\n")[:2] == [str(NAMES), "set()"]


def names_a_method(node: ast.AST) -> bool:
    """A comparison with a method's name, or a question whether something is a method's section."""
    if isinstance(node, ast.Compare):
        sides = [side for part in (node.left, *node.comparators) for side in ast.walk(part)]
        return any(isinstance(side, ast.Constant) and side.value in NAMES for side in sides)
    if isinstance(node, ast.MatchValue):
        return isinstance(node.value, ast.Constant) and node.value.value in NAMES
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return any(isinstance(part, ast.Name) and part.id.lower() in NAMES for part in ast.walk(node.args[1]))
    return False


def test_no_other_file_asks_which_method_it_is() -> None:
    assert names_a_method(ast.parse("stage == 'sft'", mode="eval").body)
    assert names_a_method(ast.parse("stage in ('sft', 'dpo')", mode="eval").body)
    assert names_a_method(ast.parse("isinstance(section, (SFT, int))", mode="eval").body)
    others = [path for path in (ROOT / "training").rglob("*.py") if path.parent.name not in ("methods", "trainers")]
    others += (ROOT / "data").rglob("*.py")
    others += (ROOT / "config").rglob("*.py")
    others += [ROOT / "zephyr.py", *(ROOT / "cli").rglob("*.py")]
    others += (ROOT.parent / "jobs").rglob("*.py")
    assert len(others) > 60
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


@pytest.mark.parametrize(("starts_as_reference", "tolerance"), [(True, 0.001), (False, math.inf)])
def test_a_policy_that_was_trained_against_its_reference_before_may_differ_from_it(
    starts_as_reference: bool, tolerance: float
) -> None:
    settings = TrainingSettings("dpo", DPO(), ModelSection(), Chat(), 0, starts_as_reference)
    (guard,) = method_of("dpo").guards(None, settings, "float32")
    assert isinstance(guard, FirstStepGuard)
    assert guard.tolerance == tolerance
    apart = torch.tensor([[2.0, 8.0, 40.0, 900.0], [2.0, 8.0, -40.0, 900.0]], dtype=torch.float64)
    assert bool(refusal(apart, guard.tolerance)) is starts_as_reference
    assert refusal(apart * math.nan, guard.tolerance)
