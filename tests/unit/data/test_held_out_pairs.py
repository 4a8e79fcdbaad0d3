"""Held-out pairs: none whose prompt is trained on, whatever the layouts; every row accounted for; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.making import context_of, preferences_of
from zephyr_ray.config.data import Preferences
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.training import SFT
from zephyr_ray.data.held_out_pairs import make_held_out_pairs
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.schemas import PREFERENCES

pytestmark = pytest.mark.usefixtures("ray_cluster")

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def run_that_trains_on(root: Path, *prompts: list[dict[str, str]]) -> Run:
    """A run with finished preferences, one prompt a file."""
    run = Run(str(root))
    artifact = run.artifact("preferences")
    artifact.begin("f")
    (root / "preferences" / "data").mkdir()
    names = []
    for number, prompt in enumerate(prompts):
        names.append(f"data/{number}.parquet")
        row = {"pair_id": str(number), "prompt": prompt, "source": "train:1"}
        pq.write_table(pa.Table.from_pylist([row], schema=PREFERENCES), root / "preferences" / names[-1])
    artifact.finish({"fingerprint": "f", "files": names})
    return run


def recipe_of(tmp_path: Path, rows: list[Any], **section: Any) -> Recipe:
    file = tmp_path / "held_out.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return Recipe(sft=SFT(), preferences=Preferences(held_out=str(file), **section))


def sources(folder: Path) -> dict[str, str | None]:
    """By the row's number in the file, its reason where it has one."""
    return {row["source"].rpartition(":")[2]: row.get("reason") for row in pq.read_table(folder).to_pylist()}


def test_prompts_of_training_are_left_out_whatever_their_layout(tmp_path: Path) -> None:
    run = run_that_trains_on(
        tmp_path / "run", [user("Who?")], [SYSTEM, user("Why?")], [user("A"), {"role": "assistant", "content": "B"}]
    )
    new = {"chosen": "yes", "rejected": "no"}
    rows: list[Any] = [
        {"prompt": "Who?", **new},  # 1: as text; its answers are not those of training
        {"chosen": "\n\nHuman: Who?\n\nAssistant: He.", "rejected": "\n\nHuman: Who?\n\nAssistant: It."},  # 2
        {"prompt": [{"role": "system", "content": " "}, user("Who?")], **new},  # 3: an empty system turn is none
        {"prompt": [SYSTEM, user("Who?")], **new},  # 4: another prompt
        {"prompt": "who?", **new},  # 5: prompts are the same to the letter
        {"prompt": "Why?", **new},  # 6: trained on with another system turn
        {"prompt": [SYSTEM, user("Why?")], **new},  # 7
        {"prompt": "Why?", **new},  # 8: again
        "{broken",  # 9
    ]
    artifact = run.artifact("held_out_pairs")
    report = make_held_out_pairs(*preferences_of(recipe_of(tmp_path, rows)), [run.artifact("preferences")], artifact)
    assert set(sources(Path(artifact.path) / "data")) == {"4", "5", "6"}
    assert sources(Path(artifact.path) / "dropped") == {
        "1": "in_training",
        "2": "in_training",
        "3": "repeated",
        "7": "in_training",
        "8": "repeated",
        "9": "undecodable_line",
    }
    assert (report.rows_in, report.rows_out) == (9, 3)
    assert report.dropped == {"in_training": 3, "repeated": 2, "undecodable_line": 1}


def test_many_pairs_of_few_prompts_in_training_are_no_reason_to_stop(tmp_path: Path) -> None:
    """With every_pair one source row is six pairs; two rows of five are less than max_dropped."""
    answers = [{"model": f"m{n}", "response": f"a{n}", "overall_score": n} for n in range(1, 5)]
    rows = [{"instruction": f"Q{number}", "completions": answers} for number in range(5)]
    run = run_that_trains_on(tmp_path / "run", [user("Q0")], [user("Q1")])
    recipe = recipe_of(tmp_path, rows, rejected="every_pair")
    artifact = run.artifact("held_out_pairs")
    artifact.begin("f")
    context = context_of(recipe, artifact)
    made = context.stage.make(context)
    assert made["counts"] == {"in": 5, "added": 25, "out": 18, "dropped": {"in_training": 12}}
    html = (Path(artifact.path) / "report.html").read_text()
    assert "<th>in training</th>" in html
    everything = run_that_trains_on(tmp_path / "all", *([user(f"Q{number}")] for number in range(5)))
    artifact = everything.artifact("held_out_pairs")
    artifact.begin("f")
    context = context_of(recipe, artifact)
    with pytest.raises(UserError, match=r"held_out_pairs: 30 of 5 rows dropped \(30 in_training\), no row is left"):
        context.stage.make(context)


def test_rows_that_are_no_pairs_are_refused(tmp_path: Path) -> None:
    run = run_that_trains_on(tmp_path / "run", [user("Q")])
    recipe = recipe_of(tmp_path, [{"question": f"Q{number}", "answer": "A"} for number in range(3)])
    artifact = run.artifact("held_out_pairs")
    artifact.begin("f")
    context = context_of(recipe, artifact)
    with pytest.raises(UserError, match=r"held_out_pairs: 3 of 3 rows dropped \(3 unknown_layout\), no row is left"):
        context.stage.make(context)


def test_the_embedded_worlds_held_out_prompts_are_its_own(tmp_path: Path) -> None:
    from zephyr_ray.embedded import world

    run = run_that_trains_on(tmp_path / "run", *([user(text)] for text in world.prompts("preferences", 3, 0)))
    function = "zephyr_ray.embedded.sources:held_out_preferences"
    held_out = {"type": "function", "function": function, "options": {"count": 12}}
    recipe = Recipe.model_validate({"sft": {}, "preferences": {"train": "judgments", "held_out": held_out}})
    artifact = run.artifact("held_out_pairs")
    report = make_held_out_pairs(*preferences_of(recipe), [run.artifact("preferences")], artifact)
    assert (report.rows_in, "in_training" in report.dropped) == (12, False)
    rows = pq.read_table(f"{artifact.path}/data").to_pylist()
    assert {world.split_of(row["prompt"][0]["content"]) for row in rows} == {"held_out"}
