"""Functions that a recipe names: called with the seed and their options; changed source is another function."""

from __future__ import annotations

from typing import Any

import pytest

from tests.making import make_pairs
from zephyr_ray.config.data import Preferences, RowFunction
from zephyr_ray.config.recipe import Recipe, RunSection
from zephyr_ray.config.training import SFT
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import plugin
from zephyr_ray.pipeline.artifacts import Run


@pytest.mark.usefixtures("ray_cluster")
def test_rows_of_a_function_are_rows(tmp_path: Any) -> None:
    source = RowFunction(type="function", function="tests.making:numbered_pairs", options={"count": 5})
    recipe = Recipe(sft=SFT(), run=RunSection(seed=7), preferences=Preferences(train=source))
    artifact = Run(str(tmp_path)).artifact("preferences")
    report = make_pairs(recipe, artifact)
    assert (report.rows_in, report.rows_out, report.dropped) == (5, 4, {"identical_pair": 1})
    html = (tmp_path / "preferences" / "report.html").read_text()
    assert f"from {source.function}" in html


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("nowhere:rows", "preferences.train=nowhere:rows: No module named"),
        (f"{__name__}:none", "has no function none"),
        (f"{__name__}:__doc__", "has no function __doc__"),
        ("rows", "write it as module:function"),
    ],
)
def test_a_function_that_is_not_there(function: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        plugin.load("preferences.train", function)


def test_a_changed_source_is_another_function(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    prints = []
    for name, text in (
        ("one_a", "def f(): return 1\n"),
        ("one_b", "def f(): return 1\n"),
        ("two", "def f(): return 2\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
        prints.append(plugin.fingerprints("f", "x", f"{name}:f"))
    assert prints[0] == prints[1] != prints[2]
    with pytest.raises(UserError, match="is not written in Python"):
        plugin.fingerprints("f", "x", "math:sqrt")
