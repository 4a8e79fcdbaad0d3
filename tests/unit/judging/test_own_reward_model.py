"""A run's own reward model judges what it does not learn from, and no model of the wrong kind is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zephyr_ray import zephyr
from zephyr_ray.errors import UserError
from zephyr_ray.serving.model_spec import checkpoint_of_run
from zephyr_ray.training.methods import load_recipe

OWN = "judging.judge={type: reward_model, model: reward_model}"
DEPLOYED = "{type: deployment, name: mine, model: reward_model}"


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    for name, architecture in (("model", "MistralForCausalLM"), ("judge", "MistralForSequenceClassification")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"architectures": [architecture]}))
        for file in ("tokenizer.json", "model.safetensors"):
            (tmp_path / name / file).write_text("{}")
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    rows = tmp_path / "rows.jsonl"
    return [
        f"run.root={tmp_path / 'run'}",
        f"model.path={tmp_path / 'model'}",
        f"prompts.train={rows}",
        f"preferences.train={rows}",
        f"preferences.held_out={rows}",
        "sampling.pool=[{type: endpoint, name: e, model: m, base_url: 'http://h/v1'}]",
        "reward_model={}",
    ]


def test_it_judges_after_it_has_learnt(given: list[str]) -> None:
    stages = zephyr.select(load_recipe([], [*given, OWN]), ["judgments"])
    names = [stage.name for stage in stages]
    assert names == ["prompts", "candidates", "preferences", "tokenized", "reward_model", "judgments"]
    assert stages[-1].inputs["reward_model"] is stages[-2]
    assert stages[-1].outside() == {}


def test_it_is_held_against_people_beside_the_judge_it_learns_from(given: list[str]) -> None:
    labelled = "evaluation.judge_agreement={pairs: FILE, judge: {type: reward_model, model: reward_model}}"
    program = "judging.judge={type: function, function: 'plugin.judge:judge'}"
    recipe = load_recipe([], [*given, program, "preferences.train=judgments", labelled])
    stages = {stage.name: stage for stage in zephyr.stages(recipe)}
    judged = stages["evaluation/labelled_pairs_judgments"]
    assert judged.inputs["reward_model"] is stages["reward_model"]
    assert "reward_model" not in stages["judgments"].inputs
    assert stages["reward_model"].inputs["tokenized"].inputs["preferences"] is stages["preferences"]


def test_margins_read_the_pairs_themselves(given: list[str]) -> None:
    plain, with_margins = (
        zephyr.select(load_recipe([], [*given, *more]), ["reward_model"])[-1]
        for more in ([], ["reward_model.margin=0.5"])
    )
    assert set(plain.inputs) == {"tokenized"}
    assert set(with_margins.inputs) == {"tokenized", "preferences"}


def test_its_held_out_stages(given: list[str]) -> None:
    """Beside DPO's: it has no implicit reward."""
    names = {stage.name for stage in zephyr.stages(load_recipe([], given))}
    assert {"held_out_rewards/reward_model", "evaluation/reward_model", "evaluation/preferences"} <= names
    assert not {name for name in names if name.endswith("_of/reward_model") or "policies/reward_model" in name}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([OWN, "preferences.train=judgments"], "learns from the judgments that it would make; name another judge"),
        ([OWN, "reward_model=null"], "judging.judge.model=reward_model: this recipe has no such stage; add a section"),
        (["judging.judge={type: reward_model, model: dpo}"], "judging.judge.model=dpo is no reward model"),
        ([f"evaluation.models=[{DEPLOYED}]"], "evaluation mine: model=reward_model is a reward model, which answers"),
        (["model.lora.r=4"], "model.lora: reward_model trains whole weights"),
        (["reward_model.margin=-1"], "reward_model.margin: .*greater than or equal to 0"),
        (["reward_model.beta=1"], "unknown key reward_model.beta"),
        (["orpo.center_rewards_coefficient=1"], "unknown key orpo.center_rewards_coefficient"),
        (["reward_model.training.trl.center_rewards_coefficient=1"], "set reward_model.center_rewards_coefficient"),
    ],
)
def test_what_is_wrong_is_one_line(given: list[str], more: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        zephyr.select(load_recipe([], [*given, *more]), ["reward_model"])


def test_the_wrong_kind_of_model_from_outside_is_refused_before_any_work(given: list[str], tmp_path: Path) -> None:
    as_judge = f"judging.judge={{type: reward_model, model: {tmp_path / 'model'}}}"
    judged = zephyr.select(load_recipe([], [*given, as_judge]), ["judgments"])[-1]
    with pytest.raises(UserError, match=r"^judging\.judge\.model=.* is no reward model, .* a MistralForCausalLM"):
        judged.outside()
    start = zephyr.select(load_recipe([], [*given, f"model.path={tmp_path / 'judge'}"]), ["dpo"])[-1]
    with pytest.raises(UserError, match=r"^model\.path=.* is a sequence classifier, .* which writes no text"):
        start.outside()
    good = f"judging.judge={{type: reward_model, model: {tmp_path / 'judge'}}}"
    assert "reward_model" in zephyr.select(load_recipe([], [*given, good]), ["judgments"])[-1].outside()


def test_it_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^stage reward_model of .* is a reward model, which answers nobody"):
        checkpoint_of_run(str(tmp_path), "reward_model")
