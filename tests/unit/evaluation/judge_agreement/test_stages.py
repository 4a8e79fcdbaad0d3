"""The stages that hold a judge against people: what they write, and how the judge is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.config.evaluation import JudgeAgreement
from zephyr_ray.config.feedback import Judging, LanguageModelJudges
from zephyr_ray.data.io.sources import count_rows
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.judge_agreement.stages import in_both_orders_and_twice, make_pairs, make_result
from zephyr_ray.judging.aggregation import scored_row
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import CANDIDATES, JUDGMENTS

ROWS = [
    {"prompt": "p1", "answer_a": "long", "answer_b": "no", "labels": ["a", "a"]},
    {"prompt": "p2", "answer_a": "no", "answer_b": "long", "labels": ["b", "a"]},
    {"prompt": "p1", "answer_a": "no", "answer_b": "long", "label": "tie", "evaluator": "third"},
    {"prompt": "p3", "answer_a": "no", "answer_b": "no", "label": "tie"},
]


def written(folder: Path, text: str = "") -> JudgeAgreement:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + text)
    return JudgeAgreement(pairs=str(file))


def pairs_of(folder: Path, text: str = "") -> Artifact:
    artifact = Run(str(folder / "run")).artifact("evaluation/labelled_pairs")
    artifact.begin("known")
    artifact.finish({"fingerprint": "known", **make_pairs(written(folder, text), artifact)})
    return artifact


def test_pairs_are_candidates_with_labels_beside_them(tmp_path: Path) -> None:
    artifact = pairs_of(tmp_path, '{"prompt": "cut')
    assert artifact.table().schema.equals(CANDIDATES)
    assert count_rows(artifact) == 2
    manifest = artifact.manifest() or {}
    assert manifest["counts"] == {
        "in": 5,
        "out": 2,
        "dropped": {"identical_pair": 1, "repeated": 1, "undecodable_line": 1},
    }
    labels = [json.loads(line)["labels"] for line in (Path(artifact.path) / "labels.jsonl").read_text().splitlines()]
    assert labels == [{"0": "a", "1": "a", "third": "tie"}, {"0": "b", "1": "a"}]


def test_the_result_accounts_for_every_pair(tmp_path: Path) -> None:
    """Of the two pairs the judge, which prefers the longer answer, has given up the second."""
    pairs = pairs_of(tmp_path)
    judged = pairs.run.artifact("evaluation/labelled_pairs_judgments")
    judged.begin("known")
    row = pairs.table().to_pylist()[0]
    scores: list[float | None] = [float(len(each["content"])) for each in row["completions"]]
    (Path(judged.path) / "data").mkdir()
    table = pa.Table.from_pylist([scored_row(row, scores)], schema=JUDGMENTS)
    pq.write_table(table, f"{judged.path}/data/a.parquet")
    judged.finish({"fingerprint": "known", "files": [{"name": "data/a.parquet", "rows": 1}]})
    artifact = pairs.run.artifact("evaluation/judge_agreement")
    artifact.begin("known")
    made = make_result(pairs, judged, artifact)
    assert made["counts"] == {"in": 2, "out": 1, "dropped": {"given_up": 1}}
    told = json.loads((Path(artifact.path) / "summary.json").read_text())
    assert (told["judge"]["accuracy"], told["judge"]["parse_rate"], told["no_majority"]) == (1.0, 0.5, 1)
    verdicts = [json.loads(line) for line in (Path(artifact.path) / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["label"], row["verdict"]) for row in verdicts] == [("a", "a"), (None, None)]


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "answer_a": "x", "answer_b": "y"}')
    artifact = Run(str(tmp_path / "run")).artifact("pairs")
    with pytest.raises(UserError, match="no row is a pair with a person's label; of the first: unscored: no person"):
        make_pairs(JudgeAgreement(pairs=str(tmp_path / "pairs.jsonl")), artifact)


def test_a_language_model_is_asked_in_both_orders_and_twice() -> None:
    server = {"type": "endpoint", "name": "j", "base_url": "http://127.0.0.1:9/v1", "model": "j"}
    judge = {"type": "language_models", "models": [server], "repeats": 1, "position_check": 0.0}
    asked = in_both_orders_and_twice(Judging.model_validate({"judge": judge})).judge
    assert isinstance(asked, LanguageModelJudges)
    assert (asked.repeats, asked.position_check) == (2, 1.0)
    thrice = in_both_orders_and_twice(Judging.model_validate({"judge": {**judge, "repeats": 3}})).judge
    assert isinstance(thrice, LanguageModelJudges)
    assert thrice.repeats == 3
    function = Judging.model_validate({"judge": {"type": "function", "function": "a:b"}})
    assert in_both_orders_and_twice(function) is function


def test_a_recipe_without_a_judge_is_refused(tmp_path: Path) -> None:
    recipe = loader.load([], [f"evaluation.judge_agreement.pairs={written(tmp_path).pairs}"])
    with pytest.raises(UserError, match="this recipe has no judging section"):
        zephyr.stages(recipe)
