"""DPO on a GPU by the stage's own trainer: the ways of `tests/unit/training/test_bf16.py`, and compiled layers.

The first step's guard, which stops a run whose policy and reference are computed in unlike ways, is on in all of them.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import DEVICE, GROUP, NEEDS_GPU, SHAPE
from tests.unit.training.bf16_workers import Way, first_step_of, make_folder, train_all
from tests.unit.training.packed_workers import start
from tests.unit.training.test_bf16 import FIRST_RECOMPUTES, MATRIX

pytestmark = NEEDS_GPU
COMPILED = ("dpo.training.compile=true",)
OTHERS = [
    Way(0, dtype="float32"),
    Way(3, options=FIRST_RECOMPUTES),
    Way(0, options=COMPILED),
    Way(1, options=COMPILED),
    Way(2, options=(*COMPILED, *FIRST_RECOMPUTES)),
    Way(0, lora=True, options=COMPILED),
]
WAYS = (*MATRIX, *OTHERS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_folder(tmp_path_factory.mktemp("model"), "mistral", **SHAPE)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: str) -> dict[Way, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs")
    start(train_all, 1, WAYS, {"mistral": model}, str(folder), DEVICE, group=GROUP)
    return {way: json.loads((folder / f"{way.name}.json").read_text()) for way in WAYS}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_first_loss_is_ln_2(runs: dict[Way, dict[str, Any]], way: Way) -> None:
    """In bfloat16 but for roundings: a product's depend on how many rows it has."""
    first = runs[way]["log"][0]
    assert abs(first["loss"] - math.log(2)) < (1e-5 if way.dtype == "float32" else 2e-2)
    assert first["grad_norm"] > 0.1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_all_ways_learn_alike(runs: dict[Way, dict[str, Any]], way: Way) -> None:
    plain = runs[Way(0, "packed", way.lora)]["log"]
    assert plain[1]["loss"] < 0.68
    assert runs[way]["log"][1]["loss"] == pytest.approx(plain[1]["loss"], abs=5e-2)


@pytest.mark.parametrize("attention", ["flex", "sdpa"])
def test_the_guard_tells_the_policy_from_another_model(tmp_path: Path, model: str, attention: str) -> None:
    way = Way(0, options=("dpo.max_steps=1", f"dpo.training.packed_attention={attention}"))
    another = make_folder(tmp_path, "mistral", seed=1, **SHAPE)
    said = []
    for reference in (model, another):
        start(first_step_of, 1, way, model, reference, str(tmp_path), DEVICE, group=GROUP)
        said.append((tmp_path / "guard.txt").read_text())
    assert said[0] == ""
    assert said[1].startswith("policy and reference are not the same model")
