"""Two models compared by a judge until it is decided, and a judge held against people's labels, through a server.

README: judging stops when it is decided, a killed command asks only for what is missing, and the budget is that of all
blocks; a recipe's judge is asked about labelled pairs in both orders and twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fault_server import FaultServer
from tests.integration.test_evaluation import endpoint, written
from tests.making import context_of, stage_of
from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.comparison_files import read_comparisons
from zephyr_ray.pipeline.artifacts import Run

pytestmark = pytest.mark.usefixtures("ray_cluster")

PRICE = {"input": 0.0, "output": 100.0}  # a reply of 10 tokens costs 0.001


class Taste(FaultServer):
    """Models answer with their names, and the judge prefers `good`, wherever it is shown."""

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = super()._reply(body)
        asked = body["messages"][-1]["content"]
        said = f"{body['model']} says {asked}"
        if body["model"] == "judge":
            first, second = (asked.find(f"{name} says") for name in ("good", "bad"))
            said = "The better one: [[A]]" if first < second else "The better one: [[B]]"
        if not body.get("response_format"):
            reply["choices"][0]["message"]["content"] = said
        return reply


@pytest.fixture
def server() -> Iterator[Taste]:
    running = Taste()
    with running:
        yield running


def recipe_of(root: Path, evaluation: Mapping[str, Any], *more: str) -> Recipe:
    return loader.load([], [f"run.root={root}", f"evaluation={json.dumps(evaluation)}", *more])


def make(recipe: Recipe, *names: str) -> dict[str, Any]:
    """Makes what is not there of the stages of these names, or of the whole evaluation; returns the last manifest."""
    run = Run(recipe.run.root)
    stages = [stage.name for stage in zephyr.stages(recipe) if stage.name.startswith("evaluation/")]
    manifest: dict[str, Any] = {}
    for name in names or stages:
        artifact = run.artifact(name)
        if not artifact.is_finished("fingerprint"):
            artifact.begin("fingerprint")
            made = stage_of(recipe, name).make(context_of(recipe, artifact))
            artifact.finish({"fingerprint": "fingerprint", **made})
        manifest = artifact.manifest() or {}
    return manifest


def compared(folder: Path, url: str, **fields: Any) -> dict[str, Any]:
    prompts = written(folder / "prompts.jsonl", [{"prompt": f"What is {number} + 1?"} for number in range(60)])
    return {
        "models": [endpoint(name, url, retries=0) for name in ("good", "bad")],
        "judge": endpoint("judge", url, retries=0, price=PRICE),
        "versus": {"prompts": prompts, "a": "bad", "b": "good", "block": 10},
        **fields,
    }


def judged(server: FaultServer) -> int:
    return sum(count for name, count in server.billed.items() if name.startswith("judge "))


def test_judging_stops_when_it_is_decided(tmp_path: Path, server: Taste) -> None:
    recipe = recipe_of(tmp_path / "run", compared(tmp_path, server.url))
    make(recipe, "evaluation/versus_answers/bad", "evaluation/versus_answers/good")
    server.faults = {"500": 0.2}
    with pytest.raises(UserError, match=r"rows failed, more than evaluation.max_failed"):
        make(recipe)
    server.faults = {}
    manifest = make(recipe)
    folder = tmp_path / "run" / "evaluation" / "versus"
    told = json.loads((folder / "summary.json").read_text())
    needed = told["prompts_judged"]
    assert 10 <= needed < 60
    assert (judged(server), set(server.billed.values())) == (2 * needed, {1})
    assert (told["win_rate"], told["interval"], told["sequential"]["decision"]["winner"]) == (0.0, None, "b")
    assert told["sequential"]["interval"][1] < 0.5
    assert f"{needed} of 60 prompts were judged; {60 - needed} were not needed" in manifest["lines"]
    again = read_comparisons(str(folder / "comparisons.jsonl"))
    assert [each.outcome for each in again.comparisons] == [0.0] * needed


def test_the_budget_is_that_of_all_blocks(tmp_path: Path, server: Taste) -> None:
    """A reply costs 0.001 US dollars, and a block of four prompts asks eight times."""
    evaluation = compared(tmp_path, server.url, budget_usd=0.0125, judge_max_tokens=10)
    evaluation["versus"]["block"] = 4
    recipe = recipe_of(tmp_path / "run", evaluation)
    make(recipe, "evaluation/versus_answers/bad", "evaluation/versus_answers/good")
    with pytest.raises(UserError, match="the budget is spent"):
        make(recipe)
    assert 8 <= judged(server) <= 12
    more = recipe_of(tmp_path / "run", {**evaluation, "budget_usd": 1.0})
    make(more)
    told = json.loads((tmp_path / "run" / "evaluation" / "versus" / "summary.json").read_text())
    assert (judged(server), set(server.billed.values())) == (2 * told["prompts_judged"], {1})


def test_a_judge_is_held_against_people(tmp_path: Path, server: Taste) -> None:
    """Of a language model both orders and a second time; of a function what it says."""
    said = enumerate([["a", "a"], ["b", "b"], ["a", "b"], ["tie", "tie"]] * 3)
    pairs = [
        {"prompt": f"p{number}", "answer_a": "x" * (number + 1), "answer_b": "y", "labels": labels}
        for number, labels in said
    ]
    file = written(tmp_path / "pairs.jsonl", [*pairs, {"prompt": "no answer"}])
    evaluation = {"judge_agreement": {"pairs": file}}
    judge = {"type": "language_models", "models": [endpoint("judge", server.url)], "aspects": ["overall"]}
    recipe = recipe_of(tmp_path / "model", evaluation, f"judging.judge={json.dumps(judge)}")
    manifest = make(recipe)
    told = json.loads((tmp_path / "model" / "evaluation" / "judge_agreement" / "summary.json").read_text())
    assert judged(server) == 12 * 2 * 2
    assert manifest["counts"] == {"in": 12, "out": 12, "dropped": {}}
    assert told["judge"]["parse_rate"] == 1.0
    asked = {name: share["n"] for name, share in told["judge"]["counts"].items()}
    assert asked == {"accuracy": 9, "kappa": 9, "swap_consistency": 12, "retest": 12, "parse_rate": 12}
    assert told["people"]["accuracy"]["value"] == pytest.approx(0.75)
    assert told["no_majority"] == 3
    assert any(re.match(r"a person with another one +0\.750", line) for line in manifest["lines"])

    function = {"type": "function", "function": "tests.integration.judges:length"}
    recipe = recipe_of(tmp_path / "function", evaluation, f"judging.judge={json.dumps(function)}")
    make(recipe)
    told = json.loads((tmp_path / "function" / "evaluation" / "judge_agreement" / "summary.json").read_text())
    found = told["judge"]
    assert (found["parse_rate"], found["swap_consistency"], found["retest"]) == (1.0, None, None)
