"""What a recipe says of teachers: what fits together, and one line for what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.errors import UserError

MAGPIE: dict[str, Any] = {"type": "magpie", "dialogues": 4}
USER: dict[str, Any] = {"type": "simulated_user", "dialogues": 3}
OWN: dict[str, Any] = {"type": "deployment", "name": "own", "model": "sft"}
FAR: dict[str, Any] = {"type": "endpoint", "name": "far", "base_url": "http://h/v1", "model": "m"}


def load(generation: dict[str, Any], *overrides: str) -> Recipe:
    return loader.load([], [f"generation={json.dumps(generation)}", "sft.base=/raw", *overrides])


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"pool": [], "methods": [MAGPIE]}, "pool is empty; name at least one teacher"),
        ({"pool": [OWN], "methods": []}, "methods is empty; name self_instruct"),
        ({"pool": [OWN], "methods": [MAGPIE, MAGPIE]}, "a method is there twice"),
        ({"pool": [OWN, OWN], "methods": [MAGPIE]}, "members own and own would share seeds"),
        ({"pool": [OWN], "methods": [USER]}, "simulated_user starts from seeds; name them in seeds"),
        ({"pool": [OWN], "methods": [MAGPIE], "seeds": "FILE"}, "seeds are read by none of the methods"),
        ({"pool": [OWN], "methods": [MAGPIE], "budget_usd": 1}, "budget_usd without a price"),
        (
            {"pool": [OWN], "methods": [{"type": "evolve", "dialogues": 1}]},
            "no type evolve; write self_instruct, ",
        ),
        (
            {"pool": [{"type": "offline", "name": "a", "model": "m"}], "methods": [MAGPIE]},
            "no type offline; write endpoint or ",
        ),
        ({"pool": [OWN, FAR], "methods": [MAGPIE]}, "magpie needs the template of endpoint far: name its tokenizer"),
        (
            {"pool": [OWN], "methods": [{**MAGPIE, "tokenizers": {"own": "/m"}}]},
            "magpie's tokenizers name own, which is no endpoint of the pool",
        ),
        ({"pool": [{**FAR, "max_in_flight": 1}], "methods": [USER], "seeds": "F", "workers": 2}, "for 2 workers"),
    ],
)
def test_what_does_not_fit_is_one_line(generation: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(generation)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def names(recipe: Recipe, until: str) -> list[str]:
    return [stage.name for stage in zephyr.select(recipe, [until])]


def test_the_runs_own_model_may_teach_what_it_does_not_learn_from() -> None:
    given = {"pool": [OWN], "methods": [MAGPIE, USER], "seeds": "FILE"}
    recipe = load(given, "dialogues.train=FILE")
    assert names(recipe, "generated_dialogues") == [
        "dialogues",
        "tokenized_dialogues",
        "sft",
        "seeds",
        "generated_dialogues",
    ]
    with pytest.raises(UserError, match=r"own: model=sft of this run learns from the dialogues that it would make"):
        zephyr.stages(load(given, "dialogues.train=generated"))


def test_a_run_learns_from_what_its_teachers_make() -> None:
    teacher = {**OWN, "model": "/teacher"}
    recipe = load({"pool": [teacher], "methods": [MAGPIE]}, "dialogues.train=generated")
    assert names(recipe, "dialogues") == ["generated_dialogues", "dialogues"]
    dialogues = zephyr.select(recipe, ["dialogues"])[-1]
    assert [*dialogues.inputs] == ["generated_dialogues"]
    with pytest.raises(UserError, match=r"dialogues.train=generated: this recipe makes no dialogues"):
        zephyr.select(loader.load([], ["sft.base=/raw", "dialogues.train=generated"]), ["dialogues"])
    with pytest.raises(UserError, match=r"this recipe has no generation section; add one with the teachers"):
        zephyr.select(loader.load([], ["sft.base=/raw"]), ["generated_dialogues"])


def test_it_says_what_decides_the_dialogues_and_nothing_else() -> None:
    def config(**fields: Any) -> Any:
        recipe = load({"pool": [{**OWN, "model": "/teacher"}], "methods": [MAGPIE], **fields})
        return next(stage.config for stage in zephyr.stages(recipe) if stage.name == "generated_dialogues")

    assert config(workers=2, labels={"group": "a"}, max_failed=0.5) == config()
    assert config(user_temperature=0.5) != config()
    assert config(methods=[{**MAGPIE, "turns": 2}]) != config()


@pytest.mark.parametrize(
    ("path", "message"),
    [("/nowhere", "is not a folder; give a folder with a tokenizer"), (".", "holds no tokenizer")],
)
def test_a_tokenizer_that_is_none(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load({"pool": [FAR], "methods": [{**MAGPIE, "tokenizers": {"far": path}}]})
    stage = next(stage for stage in zephyr.stages(recipe) if stage.name == "generated_dialogues")
    with pytest.raises(UserError, match=message):
        stage.outside()
