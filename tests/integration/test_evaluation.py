"""Models that are asked a benchmark's questions, and a judge of their answers: through a server that does harm, and a
real one.

README: every answer that there should be is a judgment, with a result or with the reason why there is none, and no
reply is paid for twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fault_server import FaultServer
from tests.integration.jobs import kill_and_finish, manifest, run_job
from tests.making import context_of, stage_of
from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.evaluation import fastchat_files, recorded_files
from zephyr_ray.evaluation.questions import asking
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
    rows: list[dict[str, Any]] = []
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


def make(recipe: Recipe) -> dict[str, Any]:
    """Makes the stages of the evaluation; returns the last one's manifest."""
    run = Run(recipe.run.root)
    made: dict[str, Any] = {}
    for name in [stage.name for stage in zephyr.stages(recipe) if stage.name.startswith("evaluation/")]:
        artifact = run.artifact(name)
        artifact.begin("fingerprint")
        made = stage_of(recipe, name).make(context_of(recipe, artifact))
        artifact.finish({"fingerprint": "fingerprint", **made})
    return made


def asked(server: FaultServer, names: Sequence[str], **fields: Any) -> dict[str, Any]:
    """An evaluation section without a benchmark: models of these names on the server, and its judge."""
    models = [endpoint(name, server.url, **fields) for name in names]
    return {"models": models, "judge": endpoint("judge", server.url, **fields), "structured": True}


def test_questions_and_judgments_of_which_some_fare_badly(tmp_path: Path, server: FaultServer) -> None:
    """Scores and verdicts of two models, one of which the other is compared with."""
    server.faults = {"429": 0.1, "500": 0.1, "malformed": 0.05, "refuse": 0.15}
    section = asked(server, ["one", "base"], retries=8) | {"judge_temperature": 0.5}
    bench = mt_bench(tmp_path, mode="both", baseline="base", samples=2)
    made = make(recipe_of(tmp_path / "run", section | {"mt_bench": bench}))
    # 9 questions, of which one has a single turn: 17 answers of each model, and each is judged twice
    assert made["counts"]["in"] == 17 * 2 * (2 + 1)
    assert made["counts"]["in"] == made["counts"]["out"] + sum(made["counts"]["dropped"].values())
    assert made["counts"]["dropped"].keys() == {"answer_error", "judge_error"}
    assert set(server.billed.values()) == {1}
    folder = tmp_path / "run" / "evaluation" / "mt_bench"
    files = {kind: str(folder / "model_judgment" / f"judge_{kind}.jsonl") for kind in ("single", "pair")}
    singles = fastchat_files.single_judgments(recorded_files.read(files["single"]))
    pairs = fastchat_files.pair_judgments(recorded_files.read(files["pair"]))
    assert (len(singles.judgments), singles.repeated, singles.incomplete) == (17 * 2 * 2, 0, 0)
    assert (len(pairs.judgments), pairs.repeated, pairs.incomplete) == (17 * 2, 0, 0)
    summary = json.loads((folder / "summary.json").read_text())
    for name, scores in summary["single"]["models"].items():
        assert scores["n"] + sum(scores["without_a_score"].values()) == scores["expected"] == 34, name
        assert scores["missing"] == 0
    lost = sum(bool(each.problem) for each in singles.judgments) + sum(bool(each.problem) for each in pairs.judgments)
    assert lost == sum(made["counts"]["dropped"].values())
    assert f"102 judgments = {102 - lost} results + {lost} without" in "\n".join(made["lines"])


def test_instructions_answered_and_compared_with_a_baseline(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults = {"429": 0.1, "refuse": 0.2}
    instructions = [{"instruction": f"Name fish number {number % 19}."} for number in range(20)]  # one is there twice
    baseline = [{**row, "output": "a cod", "generator": "davinci"} for row in instructions]
    bench = {
        "instructions": written(tmp_path / "instructions.jsonl", instructions),
        "baseline": written(tmp_path / "davinci.jsonl", baseline),
        "orders": "both",
    }
    recipe = recipe_of(tmp_path / "run", asked(server, ["one"], retries=8) | {"alpaca_eval": bench})

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(asking, "settle", stopped)  # when all answers are written, and before the stage is finished
        with pytest.raises(KeyboardInterrupt):
            make(recipe)
    made = make(recipe)
    counts = made["counts"]
    assert counts["in"] == 20 == counts["out"] + sum(counts["dropped"].values())
    assert set(server.billed.values()) == {1}
    folder = tmp_path / "run" / "evaluation" / "alpaca_eval"
    annotations = json.loads((folder / "annotations" / "one.json").read_text())
    preferences = [row["preference"] for row in annotations]
    assert {1.5, None} <= {*preferences} <= {1.0, 1.5, 2.0, None}
    assert all((row["preference"] is None) == (row["reason"] is not None) for row in annotations)
    told = json.loads((folder / "summary.json").read_text())["models"]["one"]
    kept = [each for each in preferences if each is not None]
    assert (told["n"], told["win_rate"]) == (counts["out"], pytest.approx(100 * (sum(kept) / len(kept) - 1)))
    outputs = json.loads((folder / "model_outputs" / "one.json").read_text())
    answered = [row["output_2"] for row in annotations if row["output_2"] != "$ERROR$"]
    assert [row["output"] for row in outputs] == answered
    assert len(answered) == 20 - counts["dropped"].get("answer_error", 0)


def test_a_killed_job_goes_on_and_a_model_more_asks_for_its_own_answers(tmp_path: Path, server: FaultServer) -> None:
    server.latency_s = 0.1
    root, bench = tmp_path / "run", mt_bench(tmp_path, questions=40)
    recipes, options = ("recipes/tiny.yaml",), ("run",)

    def overrides(*names: str) -> tuple[str, ...]:
        section = asked(server, names, max_in_flight=4) | {"functions": [], "mt_bench": bench}
        return (f"evaluation={json.dumps(section)}",)

    kill_and_finish(
        "evaluate",
        root,
        *overrides("one"),
        when=lambda: server.billed.total() >= 90,
        with_children=True,
        options=options,
    )
    # 79 answers are there by now, and the judge is at work.
    assert 90 <= server.billed.total() < 79 * 2
    seen = run_job("evaluate", root, *overrides("one", "two"), recipes=recipes, options=options)
    assert len(server.billed) == 2 * 79 * 2
    again = [name for name, count in server.billed.items() if count > 1]
    assert len(again) <= 8  # what was under way at that moment: asked, or answered and not yet written
    manifests = {
        name: manifest(root, f"evaluation/mt_bench_{name}")
        for name in ("answers/one", "answers/two", "judgments/one", "judgments/two")
    }
    assert {name: each["asked"]["requests"] for name, each in manifests.items()} == dict.fromkeys(manifests, 79)
    assert "158 judgments = 158 results + 0 without" in seen
    assert json.loads((root / "evaluation/mt_bench/summary.json").read_text())["single"]["models"].keys() == {
        "one",
        "two",
    }


def test_real_engines_answer_and_judge(tmp_path: Path, vllm_url: str, base_model: Path) -> None:
    from transformers import AutoTokenizer

    # A random model would explain without end: quotes are made likely, and the explanation is an empty string.
    vocabulary = AutoTokenizer.from_pretrained(base_model).get_vocab()
    quotes = {str(number): 50 for token, number in vocabulary.items() if token.startswith('"')}
    section = {
        "models": [endpoint("a", vllm_url), endpoint("b", vllm_url)],
        "judge": endpoint("judge", vllm_url, model="a"),
        "structured": True,
        "judge_temperature": 1,
        "judge_max_tokens": 60,
        "judge_extra": {"logit_bias": quotes},
        "mt_bench": mt_bench(tmp_path, questions=4, mode="both", baseline="b", samples=3, max_tokens=12),
    }
    made = make(recipe_of(tmp_path / "run", section))
    assert made["counts"] == {"in": 7 * 3 * 3, "out": 7 * 3 * 3, "dropped": {}}
    summary = json.loads((tmp_path / "run" / "evaluation" / "mt_bench" / "summary.json").read_text())
    for scores in summary["single"]["models"].values():
        assert (scores["n"], scores["judged_repeatedly"]) == (21, 7)
        assert 1 < scores["average"] < 10
        assert scores["judge_variance"] > 0
    (record,) = summary["pairwise"]["pairs"]
    assert (record["model_1"], record["n"]) == ("a", 21)
