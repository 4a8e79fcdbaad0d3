"""Models that are asked a benchmark's questions, and a judge of their answers: through a server that does harm, and a
real one.

README: every answer that there should be is a judgment, with a result or with the reason why there is none, and no
reply is paid for twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fault_server import FaultServer
from tests.making import context_of, stage_of
from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import fastchat_files, recorded_files
from zephyr_ray.pipeline.artifacts import Run

pytestmark = pytest.mark.usefixtures("ray_cluster")

CATEGORIES = ("writing", "math", "stem")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def endpoint(name: str, url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "endpoint", "name": name, "base_url": url, "model": name, "max_in_flight": 16, **fields}


def written(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def mt_bench(folder: Path, questions: int = 9, **fields: Any) -> dict[str, Any]:
    """A section with made-up questions of one and two turns, and references."""
    rows = []
    for number in range(questions):
        turns = [f"What is {number} + 1?", f"And {number} + 2?"][: 1 if number == 1 else 2]
        rows.append({"question_id": number, "category": CATEGORIES[number % len(CATEGORIES)], "turns": turns})
    references = [
        {"question_id": row["question_id"], "choices": [{"turns": [f"reference {turn}" for turn in row["turns"]]}]}
        for row in rows
    ]
    files = {
        "questions": written(folder / "question.jsonl", rows),
        "references": written(folder / "references.jsonl", references),
    }
    return files | fields


def recipe_of(root: Path, evaluation: Mapping[str, Any]) -> Recipe:
    return loader.load([], [f"run.root={root}", f"evaluation={json.dumps(evaluation)}"])


def make(recipe: Recipe, *names: str, fingerprint: str = "at first") -> dict[str, Any]:
    """Makes what is not there of the stages of these names, or of the whole evaluation; returns the last manifest."""
    run = Run(recipe.run.root)
    stages = [stage.name for stage in zephyr.stages(recipe) if stage.name.startswith("evaluation/")]
    manifest: dict[str, Any] = {}
    for name in names or stages:
        artifact = run.artifact(name)
        if not artifact.is_finished(fingerprint):
            artifact.begin(fingerprint)
            made = stage_of(recipe, name).make(context_of(recipe, artifact))
            artifact.finish({"fingerprint": fingerprint, **made})
        manifest = artifact.manifest() or {}
    return manifest


def test_questions_and_judgments_of_which_some_fare_badly(tmp_path: Path, server: FaultServer) -> None:
    """Scores and verdicts of three models, one of which the others are compared with."""
    server.faults = {"429": 0.1, "500": 0.1, "malformed": 0.05, "refuse": 0.1}
    models = [endpoint(name, server.url, retries=8) for name in ("one", "two", "base")]
    bench = mt_bench(tmp_path, mode="both", baseline="base", samples=2)
    recipe = recipe_of(
        tmp_path / "run",
        {
            "models": models,
            "judge": endpoint("judge", server.url, retries=8),
            "structured": True,
            "judge_temperature": 0.5,
            "mt_bench": bench,
        },
    )
    manifest = make(recipe)
    # 9 questions, of which one has a single turn: 17 answers, each rated and compared twice
    assert manifest["counts"]["in"] == 17 * 2 * (3 + 2)
    assert manifest["counts"]["in"] == manifest["counts"]["out"] + sum(manifest["counts"]["dropped"].values())
    assert manifest["counts"]["dropped"].keys() == {"answer_error", "judge_error"}
    assert set(server.billed.values()) == {1}
    folder = tmp_path / "run" / "evaluation" / "mt_bench"
    singles = fastchat_files.single_judgments(
        recorded_files.read(str(folder / "model_judgment" / "judge_single.jsonl"))
    )
    pairs = fastchat_files.pair_judgments(recorded_files.read(str(folder / "model_judgment" / "judge_pair.jsonl")))
    assert (len(singles.judgments), singles.repeated, singles.incomplete) == (17 * 2 * 3, 0, 0)
    assert (len(pairs.judgments), pairs.repeated, pairs.incomplete) == (17 * 2 * 2, 0, 0)
    summary = json.loads((folder / "summary.json").read_text())
    for name, scores in summary["single"]["models"].items():
        assert scores["n"] + sum(scores["without_a_score"].values()) == scores["expected"] == 34, name
        assert scores["missing"] == 0
    lost = sum(each.problem is not None for each in (*singles.judgments, *pairs.judgments))
    assert lost == sum(manifest["counts"]["dropped"].values())
    assert f"170 judgments = {170 - lost} results + {lost} without" in "\n".join(manifest["lines"])


def test_the_second_turn_sees_the_first_answer(tmp_path: Path, server: FaultServer) -> None:
    recipe = recipe_of(
        tmp_path / "run",
        {
            "models": [endpoint("one", server.url)],
            "judge": endpoint("judge", server.url),
            "mt_bench": mt_bench(tmp_path),
        },
    )
    make(recipe, "evaluation/mt_bench_answers/one")
    sent = [json.loads(name.split(" ", 2)[2]) for name in server.billed]
    assert len(sent) == 17
    seconds = [messages for messages in sent if len(messages) == 3]
    assert len(seconds) == 8
    for messages in seconds:
        assert [each["role"] for each in messages] == ["user", "assistant", "user"]
        assert messages[1]["content"].startswith("answer ")
    # The server replies in free text without a mark, which is no score.
    with pytest.raises(UserError, match=r"not one of 17 judgments has a result \(17 no_score\)"):
        make(recipe)


def test_a_run_that_broke_off_asks_for_what_is_missing(tmp_path: Path, server: FaultServer) -> None:
    evaluation = {
        "models": [endpoint("one", server.url, retries=0)],
        "judge": endpoint("judge", server.url, retries=0),
        "structured": True,
        "mt_bench": mt_bench(tmp_path),
    }
    recipe = recipe_of(tmp_path / "run", evaluation)
    server.faults = {"500": 0.3}
    with pytest.raises(UserError, match=r"mt_bench_answers/one: \d of 9 rows failed, more than evaluation.max_failed"):
        make(recipe)
    server.faults = {}
    make(recipe, "evaluation/mt_bench_answers/one")
    assert (set(server.billed.values()), sum(server.billed.values())) == ({1}, 17)
    server.faults = {"500": 0.3}
    with pytest.raises(UserError, match=r"mt_bench_judgments/one: \d of 17 rows failed"):
        make(recipe)
    server.faults = {}
    whole = make(recipe)
    assert (set(server.billed.values()), sum(server.billed.values())) == ({1}, 17 + 17)
    # One model more asks for nothing but its own.
    more = recipe_of(tmp_path / "run", evaluation | {"models": [*evaluation["models"], endpoint("two", server.url)]})
    shutil.rmtree(tmp_path / "run" / "evaluation" / "mt_bench")
    assert make(more)["counts"]["in"] == 2 * whole["counts"]["in"]
    assert (set(server.billed.values()), sum(server.billed.values())) == ({1}, 2 * (17 + 17))
