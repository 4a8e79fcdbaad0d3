"""The results of both benchmarks from answers and judgments that are there: every file, every number, every row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.making import context_of, stage_of
from tests.unit.evaluation.questions.asked import Model
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import alpaca_eval, fastchat_files, recorded_files
from zephyr_ray.evaluation.fastchat_files import QuestionId
from zephyr_ray.evaluation.questions import alpaca_eval_annotations, mt_bench_judgments
from zephyr_ray.evaluation.questions.alpaca_eval_annotations import Compared
from zephyr_ray.evaluation.questions.alpaca_eval_outputs import OUTPUTS
from zephyr_ray.evaluation.questions.judging import JUDGED, judge_answer
from zephyr_ray.evaluation.questions.mt_bench_answers import ANSWERS
from zephyr_ray.evaluation.questions.mt_bench_judgments import Answers
from zephyr_ray.pipeline.artifacts import Run

MODEL = {"type": "endpoint", "base_url": "http://h/v1", "model": "m"}


def recipe_of(folder: Path, **benches: Any) -> Recipe:
    models = [{**MODEL, "name": name} for name in ("mine", "base")]
    section = {"models": models, "judge": {**MODEL, "name": "gpt"}, **benches}
    return loader.load([], [f"run.root={folder / 'run'}", f"evaluation={json.dumps(section)}"])


def finished(recipe: Recipe, name: str, schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> None:
    """An artifact with these rows."""
    artifact = Run(recipe.run.root).artifact(name)
    artifact.begin("fingerprint")
    (Path(artifact.path) / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([*rows], schema=schema), Path(artifact.path) / "data" / "rows.parquet")
    artifact.finish({"fingerprint": "fingerprint", "files": [{"name": "data/rows.parquet", "rows": len(rows)}]})


def made(recipe: Recipe, name: str) -> tuple[dict[str, Any], Path]:
    """A result's part of the manifest, and its folder."""
    artifact = Run(recipe.run.root).artifact(name)
    artifact.begin("fingerprint")
    manifest = stage_of(recipe, name).make(context_of(recipe, artifact))
    for file in manifest["files"]:
        assert (Path(artifact.path) / file).is_file()
    return manifest, Path(artifact.path)


def judged(rows: Sequence[dict[str, Any]], replies: Sequence[str]) -> list[dict[str, Any]]:
    """Judgments of what is planned, with the judge's replies to what it is asked."""
    judge = Model(*replies)
    made = [asyncio.run(judge_answer(row, judge, fields={}, structured=False)) for row in rows]
    assert len(judge.asked) == len(replies)
    return made


def mt_bench(folder: Path, replies: Sequence[str], of_base: Sequence[str]) -> Recipe:
    """Two questions: one turn of `mine` is missing, and its last judgment was given up."""
    questions = [
        {"question_id": 81, "category": "writing", "turns": ["write", "again"]},
        {"question_id": 82, "category": "stem", "turns": ["explain"]},
    ]
    (folder / "question.jsonl").write_text("\n".join(json.dumps(row) for row in questions))
    bench = {"questions": str(folder / "question.jsonl"), "references": None, "mode": "both", "baseline": "base"}
    recipe = recipe_of(folder, mt_bench=bench)
    said: dict[str, dict[QuestionId, list[str]]] = {
        "mine": {81: ["w1"], 82: ["s1"]},
        "base": {81: ["W1", "W2"], 82: ["S1"]},
    }
    for name, answers in said.items():
        rows = [
            {
                "answer_id": str(n),
                "question": str(n),
                "answers": each,
                "finish_reasons": ["length", "stop"][: len(each)],
            }
            for n, each in answers.items()
        ]
        finished(recipe, f"evaluation/mt_bench_answers/{name}", ANSWERS, rows)
    section = recipe.evaluation.mt_bench
    assert section is not None
    own = mt_bench_judgments.planned(section, Answers("mine", said["mine"], "base", said["base"]))
    kept = judged(own, replies)[:-1]
    finished(recipe, "evaluation/mt_bench_judgments/mine", JUDGED, kept)
    others = mt_bench_judgments.planned(section, Answers("base", said["base"]))
    finished(recipe, "evaluation/mt_bench_judgments/base", JUDGED, judged(others, of_base))
    return recipe


def test_mt_bench(tmp_path: Path) -> None:
    recipe = mt_bench(tmp_path, ["[[9]]", "[[A]]", "[[B]]", "[[3]]", "[[A]]", "[[A]]"], ["[[6]]", "[[8]]", "no mark"])
    manifest, folder = made(recipe, "evaluation/mt_bench")
    # Of mine: 9, none, 3; of the other: 6, 8, none. Of the pairs one is won, one has no answer, one no second game.
    dropped = {"answer_error": 2, "judge_error": 1, "no_score": 1}
    assert manifest["counts"] == {"in": 9, "out": 5, "dropped": dropped}
    assert manifest["lines"][-1] == ("9 judgments = 5 results + 4 without (2 answer_error, 1 judge_error, 1 no_score)")
    assert manifest["lines"][:2] == [
        "mine: 2 of 2 answers were cut at max_tokens=1024",
        "base: 2 of 3 answers were cut at max_tokens=1024",
    ]
    summary = json.loads((folder / "summary.json").read_text())
    scores = summary["single"]["models"]
    assert (scores["mine"]["average"], scores["mine"]["n"], scores["mine"]["expected"]) == (6.0, 2, 3)
    assert (scores["base"]["turn_1"], scores["base"]["turn_2"], scores["base"]["n"]) == (6.0, 8.0, 2)
    assert summary["pairwise"]["pairs"][0]["loss"] == 1  # of base, the first by its name
    assert (summary["counts"], summary["cut_answers"]) == (manifest["counts"], {"mine": 2, "base": 2})
    answers = [json.loads(line) for line in (folder / "model_answer" / "mine.jsonl").read_text().splitlines()]
    assert [each["choices"][0]["turns"] for each in answers] == [["w1", "$ERROR$"], ["s1"]]
    recorded = recorded_files.read(str(folder / "model_judgment" / "gpt_single.jsonl"))
    assert len(fastchat_files.single_judgments(recorded).judgments) == 6
    assert manifest["lines"] == (folder / "table.md").read_text().splitlines()[1:-1]


def test_a_judge_without_a_single_result_is_refused(tmp_path: Path) -> None:
    recipe = mt_bench(tmp_path, ["no mark"] * 6, ["no mark"] * 3)
    with pytest.raises(UserError, match=r"MT-Bench: not one of 9 judgments has a result \(2 answer_error, .*judge?"):
        made(recipe, "evaluation/mt_bench")


def test_alpaca_eval(tmp_path: Path) -> None:
    instructions = [{"instruction": text, "dataset": "made"} for text in ("name a fish", "count", "sing")]
    (tmp_path / "instructions.json").write_text(json.dumps(instructions))
    bench = {"instructions": str(tmp_path / "instructions.json"), "baseline": "base", "orders": "both"}
    recipe = recipe_of(tmp_path, alpaca_eval=bench)
    said: dict[str, list[str | None]] = {"mine": ["trout", "1 2", None], "base": ["cod", "one", "la"]}
    for name, answers in said.items():
        rows = [
            {"output_id": str(place), "place": place, "output": text, "finish_reason": "stop" if text else None}
            for place, text in enumerate(answers)
        ]
        finished(recipe, f"evaluation/alpaca_eval_outputs/{name}", OUTPUTS, rows)
    section = recipe.evaluation.alpaca_eval
    assert section is not None
    planned = alpaca_eval_annotations.planned(section, 0, Compared("mine", said["mine"], "base", said["base"]))
    finished(
        recipe,
        "evaluation/alpaca_eval_annotations/mine",
        JUDGED,
        judged(planned, ["[[A]]", "[[B]]", "[[A]]", "[[A]]"]),
    )
    manifest, folder = made(recipe, "evaluation/alpaca_eval")
    assert manifest["counts"] == {"in": 3, "out": 2, "dropped": {"answer_error": 1}}
    assert manifest["lines"][-1] == "3 annotations = 2 results + 1 without (1 answer_error)"
    rows = recorded_files.read(str(folder / "annotations" / "mine.json")).rows
    assert [row["preference"] for row in rows] == [2.0, 1.5, None]
    assert alpaca_eval.summarise(rows).win_rate == 75.0
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["models"]["mine"]["win_rate"], summary["models"]["mine"]["n"]) == (75.0, 2)
    assert [row["output"] for row in recorded_files.read(str(folder / "model_outputs" / "mine.json")).rows] == [
        "trout",
        "1 2",
    ]
