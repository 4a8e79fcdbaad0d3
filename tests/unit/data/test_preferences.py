"""The stage: rows accounted for, judgments as input, benchmarks kept out, a picture beside the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.making import make_pairs
from zephyr_ray import zephyr
from zephyr_ray.config.data import Preferences
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.training import SFT
from zephyr_ray.data.io import drop_report
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import ASPECTS, JUDGMENTS

pytestmark = pytest.mark.usefixtures("ray_cluster")


def recipe(**section: Any) -> Recipe:
    return Recipe(sft=SFT(), preferences=Preferences(**section))


def out(tmp_path: Path, name: str) -> Artifact:
    return Run(str(tmp_path / name)).artifact("preferences")


def kept(artifact: Artifact) -> list[dict[str, Any]]:
    return sorted(pq.read_table(f"{artifact.path}/data").to_pylist(), key=lambda row: row["source"])


def judgment(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Question {number}?"}]
    return {
        "prompt_id": content_id(messages),
        "messages": messages,
        "completions": [completion(model, number) for model in range(4)] if number % 5 else [],
        "replies": [{"judge": "j", "repeat": 0, "aspect": "overall", "order": [0, 1, 2, 3], "raw": "Rating: 3"}],
        "error": None if number % 5 else "no server answered",
    }


def completion(model: int, number: int) -> dict[str, Any]:
    score = None if model == 3 else float((model * 7 + number) % 10 + 1)
    return {
        "model": f"m{model}",
        "content": f"answer {model} to {number}",
        "finish_reason": "stop",
        "tokens": 4,
        "seed": model,
        "annotations": {aspect: {"rating": 3.0 if model else None, "rationale": "so"} for aspect in ASPECTS},
        "overall_score": score,
        "critique": "fine",
        "opinions": [{"judge": "j", "repeat": 0, "position": model, "aspect": "overall", "rating": score}],
    }


def judgments(root: Path, sizes: tuple[int, ...]) -> Artifact:
    artifact = Run(str(root)).artifact("judgments")
    artifact.begin("f")
    (root / "judgments" / "data").mkdir()
    rows, names = [judgment(number) for number in range(sum(sizes))], []
    for index, size in enumerate(sizes):
        start = sum(sizes[:index])
        names.append(f"data/{index:06d}-000.parquet")
        table = pa.Table.from_pylist(rows[start : start + size], schema=JUDGMENTS)
        pq.write_table(table, root / "judgments" / names[-1], row_group_size=7)
    artifact.finish({"fingerprint": "f", "files": names})
    return artifact


def test_judgments_give_the_rows_that_their_files_give(tmp_path: Path) -> None:
    made = judgments(tmp_path / "run", (30, 10))
    a, b = out(tmp_path, "a"), out(tmp_path, "b")
    first = make_pairs(recipe(train="judgments"), a, judgments=made)
    second = make_pairs(recipe(train=f"{made.path}/data"), b)
    assert kept(a) == kept(b)
    assert (first.rows_in, first.rows_out, first.dropped) == (40, 32, {"empty": 8})
    assert (first.dropped, first.stats, first.noted) == (second.dropped, second.stats, second.noted)
    assert all("m3" not in (row["chosen_model"], row["rejected_model"]) for row in kept(a))
    aspects = make_pairs(recipe(train="judgments", score="aspects"), out(tmp_path, "c"), judgments=made)
    assert aspects.dropped == {"empty": 8, "tie": 32}  # three answers have 3, one has none


def test_the_pairs_are_the_same_however_the_judgments_lie_in_files(tmp_path: Path) -> None:
    made = []
    for name, sizes in (("one", (40,)), ("four", (5, 20, 14, 1))):
        artifact = out(tmp_path, f"{name}-out")
        make_pairs(recipe(train="judgments"), artifact, judgments=judgments(tmp_path / name, sizes))
        made.append(sorted(row["pair_id"] for row in kept(artifact)))
    assert made[0] == made[1]


def test_judgments_that_are_not_there_are_one_error(tmp_path: Path) -> None:
    wanted = recipe(train="judgments")
    with pytest.raises(UserError, match="give the recipe a sampling and a judging section"):
        make_pairs(wanted, out(tmp_path, "a"))
    with pytest.raises(UserError, match="give the recipe a sampling and a judging section"):
        zephyr.select(wanted, ["preferences"])  # before any work
    missing = Run(str(tmp_path / "nothing")).artifact("judgments")
    with pytest.raises(UserError, match=r"judgments is not finished"):
        make_pairs(recipe(train="judgments"), out(tmp_path, "a"), judgments=missing)


def test_every_pair_accounts_for_source_rows_and_pairs(tmp_path: Path) -> None:
    def row(number: int, *scores: int, text: str = "") -> str:
        answers = [{"model": f"m{n}", "response": text or f"a{n}", "overall_score": s} for n, s in enumerate(scores)]
        return json.dumps({"instruction": f"Q{number}", "completions": answers})

    file = tmp_path / "rows.jsonl"
    # 3 pairs; 1 pair; a tie; 3 of one text; the first row's 3 again; no row
    rows = [row(1, 1, 2, 3), row(2, 1, 2), row(3, 4, 4), row(4, 1, 2, 3, text="same"), row(1, 1, 2, 3), "broken"]
    file.write_text("\n".join(rows))
    artifact = out(tmp_path, "run")
    report = make_pairs(recipe(train=str(file), rejected="every_pair"), artifact)
    assert (report.rows_in, report.added, report.rows_out) == (6, 6, 4)
    assert report.dropped == {"tie": 1, "identical_pair": 3, "repeated": 3, "undecodable_line": 1}
    assert [row["source"].partition(":")[2] for row in kept(artifact)] == ["1/1", "1/2", "1/3", "2"]
    assert report.noted == {"disagreeing_answers": 0, "pairs_per_row": 0.67}
    lines = drop_report.lines(report)
    assert lines[0] == "6 rows in + 6 more that came of them = 4 kept + 8 dropped"
    assert drop_report.manifest(report)["counts"]["added"] == 6
    with pytest.raises(UserError, match=r"more than max_dropped=0\.5 allows"):
        drop_report.check(report, 0.5, artifact)  # 8 of the 12


def test_benchmark_prompts_are_kept_out(tmp_path: Path) -> None:
    bench, file = tmp_path / "bench.txt", tmp_path / "rows.jsonl"
    bench.write_text("Who was it?\nWhy do veins appear blue?\nHow many hearts does an octopus have in the sea?\n")
    rows = [
        {"prompt": "Tell me, why do VEINS appear blue?", "chosen": "a", "rejected": "b"},
        {"prompt": "Say: who was it?", "chosen": "a", "rejected": "b"},
        {"prompt": "A quiz?", "chosen": "a", "rejected": "Here: How many hearts does an octopus have in the sea?"},
        {"prompt": "What is 2 + 2?", "chosen": "a", "rejected": "b"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    artifact = out(tmp_path, "run")
    report = make_pairs(recipe(train=str(file), decontaminate=[str(bench)]), artifact)
    assert (report.rows_out, report.dropped) == (2, {"contaminated": 2})
    assert report.noted == {"contaminated_by bench.txt": 2}
    assert drop_report.lines(report)[-1] == "  contaminated by bench.txt: 2"
    dropped = [row["detail"] for row in pq.read_table(f"{artifact.path}/dropped").to_pylist()]
    assert dropped == [
        "bench.txt:2: Why do veins appear blue?",
        "bench.txt:3: How many hearts does an octopus have in the sea?",
    ]
    with pytest.raises(UserError, match=r"preferences\.decontaminate: .*nowhere\.txt cannot be read"):
        make_pairs(recipe(train=str(file), decontaminate=[str(tmp_path / "nowhere.txt")]), artifact)


def test_the_picture_is_part_of_the_artifact_and_counts_what_is_left(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    pair = {"prompt": "Q", "chosen": "long", "rejected": "s", "chosen_model": "a", "rejected_model": "b"}
    file.write_text("\n".join(json.dumps(each) for each in (pair, pair, {**pair, "prompt": "Q2"})))
    artifact = out(tmp_path, "run")
    report = make_pairs(recipe(train=str(file)), artifact)
    assert {"report.html", "report.png"} <= set(report.files)
    assert report.dropped == {"repeated": 1}
    assert "2 / 0" in (Path(artifact.path) / "report.html").read_text()  # a was chosen twice, not three times
    assert report.noted == {}
