"""One row of a run, from its source to the models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import small_run
from zephyr_ray.data.row_lineage.facts import Kept, Left, ModelUse, RowLineage
from zephyr_ray.data.row_lineage.text import lines_of
from zephyr_ray.data.row_lineage.trace import trace
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.lineage.reading import stages_of
from zephyr_ray.training.sampler import Plan

FILE = "data/e000001-000.parquet"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return small_run.make(str(tmp_path / "run"))


def row(run: Run, asked: str) -> RowLineage:
    return trace(run, stages_of(run), asked)


def test_a_pair_is_followed_back_to_its_source_and_on_to_the_models(run: Run) -> None:
    pair = small_run.pairs(run)[0]
    pair_id, prompt_id = pair["pair_id"], small_run.prompt_id(0)
    found = row(run, pair_id)
    assert set(found.row_ids) == {pair_id, prompt_id}
    assert found.sources == ("questions.jsonl:1",)
    assert [message["content"] for message in found.prompt] == [small_run.QUESTIONS[0]]
    of_prompt = [Kept(stage, prompt_id, FILE, 1) for stage in ("prompts", "candidates", "judgments")]
    assert found.kept == (*of_prompt, *(Kept(stage, pair_id, FILE, 1) for stage in ("preferences", "tokenized")))
    assert found.dropped == (Left("prompts", "repeated", prompt_id, "questions.jsonl:4"),)
    assert [(each.model, each.seed, each.overall_score) for each in found.completions] == [
        ("own", 0, 9.0),
        ("first", 1, 3.0),
        ("first", 2, 5.0),
    ]
    assert [each.opinions[0].judge for each in found.completions] == ["judge"] * 3
    (told,) = found.pairs
    assert (told.chosen.completion, told.chosen.score) == (1, 9.0)
    assert told.rejected.completion in (2, 3)
    assert told.why == (
        "the chosen one has the best overall_score (9) of 3 completions; the rejected one was drawn by the seed among "
        "the 2 that score lower"
    )
    assert found.models == (ModelUse("dpo", pair_id, "tokenized", 2),)


def test_answers_of_two_rounds_are_told_apart(tmp_path: Path) -> None:
    """Both rounds answer the same prompts, and files of both have the same names."""
    run = small_run.make(str(tmp_path / "run"), rounds=2)
    for stage, other in (("preferences", "round_2/preferences"), ("round_2/preferences", "preferences")):
        pair = run.artifact(stage).table().to_pylist()[0]
        found = row(run, pair["pair_id"])
        assert [each.number for each in found.completions] == [1, 2, 3, 4, 5, 6]
        assert [each.round for each in found.completions] == [1, 1, 1, 2, 2, 2]
        told = {each.stage: each for each in found.pairs}
        assert {*told} == {stage, other}
        for each in told.values():
            chosen = found.completions[(each.chosen.completion or 0) - 1]
            assert (chosen.content, chosen.overall_score) == (each.chosen.content, 9.0)
            assert chosen.round == (2 if each.stage.startswith("round_2/") else 1)
            assert each.why.startswith("the chosen one has the best overall_score (9) of 3 completions")
        assert "completion 4 by own in round 2: seed" in "\n".join(lines_of(found))
    tied = row(run, small_run.prompt_id(1))
    assert [each.stage for each in tied.dropped] == ["preferences", "round_2/preferences"]
    judgments = row(run, f"{run.artifact('judgments').uris()[0]}:2")
    assert [each.source for each in judgments.dropped if each.stage == "preferences"] == [
        f"{run.artifact('judgments').uris()[0]}:2"
    ]


def test_a_prompt_its_beginning_and_its_source_name_the_same_row(run: Run) -> None:
    by_id = row(run, small_run.prompt_id(2))
    for asked in (small_run.prompt_id(2)[:10].upper(), "questions.jsonl:3"):
        found = row(run, asked)
        assert found.data | {"asked": ""} == by_id.data | {"asked": ""}
    assert len(by_id.pairs) == 1
    assert "drawn by the seed among 2 with that score" in by_id.pairs[0].why


def test_a_dropped_row_says_where_and_why(run: Run) -> None:
    tied = row(run, small_run.prompt_id(1))
    assert (tied.pairs, tied.models) == ((), ())
    (dropped,) = tied.dropped
    assert (dropped.stage, dropped.reason) == ("preferences", "tie")
    assert "no model of this run was trained on it" in lines_of(tied)
    assert tied.dropped[0].source == f"{run.root}/judgments/{FILE}:2"
    assert row(run, str(tied.dropped[0].source)).data | {"asked": ""} == tied.data | {"asked": ""}
    unread = row(run, "questions.jsonl:5")
    assert unread.kept == ()
    assert unread.dropped == (Left("prompts", "undecodable_line", "{", "questions.jsonl:5"),)


def test_a_run_that_moved_is_followed_all_the_same(run: Run, tmp_path: Path) -> None:
    """Its pairs name their judgments by the old place."""
    pair_id = small_run.pairs(run)[0]["pair_id"]
    before = row(run, pair_id)
    moved = Run(str(shutil.move(run.root, tmp_path / "elsewhere")))
    assert row(moved, pair_id) == before
    assert row(moved, small_run.prompt_id(1)).dropped[0].reason == "tie"


def test_an_unfinished_run_shows_what_is_there(tmp_path: Path) -> None:
    run = small_run.make(str(tmp_path / "run"), until="preferences")
    tied, paired = row(run, small_run.prompt_id(1)), row(run, small_run.prompt_id(0))
    assert [each.stage for each in tied.dropped] == ["preferences"]
    assert len(paired.pairs) == 1
    assert paired.models == ()


def test_how_often_a_training_took_a_row_is_what_its_plan_says(tmp_path: Path) -> None:
    """One step of one row: one of the two rows is never trained on."""
    run = small_run.make(str(tmp_path / "run"))
    stages = stages_of(run)
    stages["dpo"].config["dpo"]["max_steps"] = 1
    ids = sorted(pair["pair_id"] for pair in small_run.pairs(run))
    times = [trace(run, stages, pair_id).models[0].times for pair_id in ids]
    assert times == Plan(2, 1, 2.0, 7, 1).times_seen().tolist()
    assert sorted(map(str, times)) == ["0", "1"]


def test_unknown_rows_and_ambiguous_beginnings_are_refused(run: Run) -> None:
    with pytest.raises(UserError, match=r"--row ffffff: no row of .*/run has this id or source; .* give its source"):
        row(run, "ffffff")
    with pytest.raises(UserError, match=r"--row nothing.jsonl:1: no row"):
        row(run, "nothing.jsonl:1")
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = run.artifact("prompts").files()[0]
    table = pq.read_table(file)
    ids = pa.array(["abcd" + "0" * 28, "abcd" + "1" * 28, "f" * 32])
    pq.write_table(table.set_column(0, "prompt_id", ids), file)
    with pytest.raises(UserError, match=r"--row abcd is the beginning of 2 ids: abcd0+, abcd1+; give more digits"):
        row(run, "abcd")


def test_a_person_reads_it_from_the_source_to_the_models(run: Run) -> None:
    pair_id = small_run.pairs(run)[0]["pair_id"]
    said = lines_of(row(run, pair_id))
    assert said[1:3] == ["source     questions.jsonl:1", "user       Which city?"]
    assert f"dpo was trained on it 2 times (as {pair_id} of tokenized)" in said
    assert "completion 1 by own: seed 0, finish reason stop, 3 tokens" in said
