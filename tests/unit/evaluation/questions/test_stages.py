"""The stages of a recipe's evaluation: a stage for each model, and what makes which stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import embedded_world
from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.stage import identities

RUN = (
    f"sft.base={embedded_world.base()}",
    f"dialogues.train={embedded_world.rows('dialogues', 100)}",
    f"preferences.train={embedded_world.rows('preferences', 100)}",
)


def endpoint(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "endpoint", "name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, **fields}


def deployment(name: str, model: str) -> dict[str, Any]:
    return {"type": "deployment", "name": name, "model": model}


@pytest.fixture
def bench(tmp_path: Path) -> dict[str, Any]:
    questions, instructions = tmp_path / "question.jsonl", tmp_path / "instructions.json"
    questions.write_text(json.dumps({"question_id": 1, "category": "writing", "turns": ["write", "again"]}))
    instructions.write_text(json.dumps([{"instruction": "name a fish"}]))
    return {
        "models": [endpoint("one"), endpoint("two")],
        "judge": endpoint("gpt"),
        "mt_bench": {"questions": str(questions), "references": None},
        "alpaca_eval": {"instructions": str(instructions), "baseline": "two"},
    }


def known(bench: dict[str, Any], *overrides: str) -> dict[str, str]:
    """The fingerprints of what it takes to evaluate."""
    recipe = loader.load([], [f"evaluation={json.dumps(bench)}", *overrides])
    stages = zephyr.select(recipe, zephyr.evaluations(recipe))
    return {stage.name.removeprefix("evaluation/"): each.fingerprint for stage, each in identities(stages).items()}


def test_endpoints_need_no_stage_of_the_run(bench: dict[str, Any]) -> None:
    assert [*known(bench)] == [
        *(f"mt_bench_{what}/{name}" for what in ("answers", "judgments") for name in ("one", "two")),
        "mt_bench",
        *(f"alpaca_eval_{what}" for what in ("outputs/one", "outputs/two", "annotations/one")),
        "alpaca_eval",
    ]


def test_the_baseline_is_not_compared_with_itself(bench: dict[str, Any]) -> None:
    bench["mt_bench"] |= {"mode": "pairwise", "baseline": "two"}
    assert "mt_bench_judgments/two" not in known(bench)
    bench["mt_bench"] |= {"mode": "both"}
    assert "mt_bench_judgments/two" in known(bench)


def stale(bench: dict[str, Any], **changed: Any) -> set[str]:
    """The stages that are others with these fields."""
    before, after = known(bench), known(bench | changed)
    return {name for name in before if before[name] != after[name]}


def test_what_a_change_makes_stale(bench: dict[str, Any]) -> None:
    results = {"mt_bench", "alpaca_eval"}
    judged = {"mt_bench_judgments/one", "mt_bench_judgments/two", "alpaca_eval_annotations/one", *results}
    of_one = {"mt_bench_answers/one", "mt_bench_judgments/one", "alpaca_eval_outputs/one"}
    of_one |= {"alpaca_eval_annotations/one", *results}
    assert stale(bench, models=[*bench["models"], endpoint("three")]) == results
    assert stale(bench, models=[endpoint("one", model="newer"), endpoint("two")]) == of_one
    assert stale(bench, judge_temperature=0.5) == stale(bench, structured=True) == judged
    assert stale(bench, judge=endpoint("other")) == judged
    assert stale(bench, workers=2, max_failed=0.5, judge=endpoint("gpt", base_url="http://other/v1")) == set()
    assert stale(bench, mt_bench=bench["mt_bench"] | {"max_tokens": 5}) == {
        name for name in known(bench) if name.startswith("mt_bench")
    }
    assert stale(bench, alpaca_eval=bench["alpaca_eval"] | {"orders": "both"}) == {
        "alpaca_eval_annotations/one",
        "alpaca_eval",
    }


def test_models_of_the_run_are_made_first(bench: dict[str, Any]) -> None:
    bench["models"] = [deployment("aligned", "dpo"), deployment("base", "base"), endpoint("two")]
    found = known(bench, *RUN)
    assert {"base", "sft", "dpo"} <= found.keys()
    recipe = loader.load([], [f"evaluation={json.dumps(bench)}", *RUN])
    inputs = {stage.name: [*stage.inputs] for stage in zephyr.stages(recipe)}
    assert inputs["evaluation/mt_bench_answers/aligned"] == ["dpo"]
    assert inputs["evaluation/mt_bench_answers/two"] == []
    with pytest.raises(UserError, match="evaluation base: model=base: this recipe has no such stage"):
        known(bench, "model.path=somewhere")


def test_only_one_model_is_deployed_at_a_time(bench: dict[str, Any], tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / file).write_text("{}")
    bench["models"] = [deployment("one", str(tmp_path)), deployment("two", str(tmp_path))]
    bench["judge"] = deployment("gpt", str(tmp_path))
    recipe = loader.load([], [f"evaluation={json.dumps(bench)}"])
    for stage in zephyr.select(recipe, zephyr.evaluations(recipe)):
        engines = [each for each in stage.demands if "GPU" in each.bundle]
        assert len(engines) == (0 if stage.is_evaluation else 1)


def test_a_file_that_is_not_there(bench: dict[str, Any]) -> None:
    bench["mt_bench"]["questions"] = "nowhere.jsonl"
    with pytest.raises(UserError, match=r"nowhere.jsonl cannot be read: No such file"):
        known(bench)
    bench["mt_bench"] = None
    bench["alpaca_eval"]["baseline"] = "nowhere.json"
    with pytest.raises(UserError, match=r"nowhere.json cannot be read: No such file"):
        known(bench)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judge": None}, "mt_bench asks models and a judge"),
        ({"models": [], "mt_bench": None}, "alpaca_eval asks models and a judge"),
        ({"models": [endpoint("one"), endpoint("one")]}, "models one and one would share seeds"),
        ({"models": [endpoint("a/b")]}, "a/b: a model's name is that of files here"),
        ({"judge": endpoint("the judge")}, "the judge: a model's name is that of files here"),
        ({"mt_bench": {"mode": "pairwise"}}, "mode=pairwise compares with a baseline"),
        ({"mt_bench": {"baseline": "two"}}, "baseline is read by mode pairwise and both"),
        ({"mt_bench": {"mode": "both", "baseline": "three"}}, r"baseline=three: name one of the models \(one, two\)"),
        ({"models": [endpoint("two")]}, "alpaca_eval.baseline is the only model"),
        ({"mt_bench": {"samples": 3}}, "samples above 1 needs judge_temperature above 0"),
        ({"budget_usd": 5}, "budget_usd without a price at any endpoint"),
        ({"workers": 65}, "one: max_in_flight=64 for 65 workers"),
    ],
)
def test_what_a_recipe_may_not_say(bench: dict[str, Any], changed: dict[str, Any], message: str) -> None:
    for name, value in changed.items():
        bench[name] = bench[name] | value if name == "mt_bench" and value else value
    with pytest.raises(UserError, match=message):
        loader.load([], [f"evaluation={json.dumps(bench)}"])


def test_references_are_named_or_left_out_by_name(bench: dict[str, Any]) -> None:
    del bench["mt_bench"]["references"]
    with pytest.raises(UserError, match=r"evaluation\.mt_bench\.references"):
        loader.load([], [f"evaluation={json.dumps(bench)}"])


def test_a_recipe_without_an_evaluation() -> None:
    with pytest.raises(UserError, match="this recipe evaluates nothing; name models, a judge and mt_bench"):
        zephyr.evaluations(loader.load([], []))
