"""Pairs with people's labels, of every layout that has some."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.evaluation import recorded_files
from zephyr_ray.evaluation.judge_agreement.labelled_pairs import LabelledPair, labelled_pair, merged
from zephyr_ray.schemas import Dropped

PANDALM = {"instruction": "Say it", "input": "hello", "response1": "hi", "response2": "ho", "annotator1": 1}
VOTE = {"prompt": "Say it", "completion_a": "hi", "completion_b": "ho", "preference": "b-is-slightly-better"}


def test_pandalm() -> None:
    pair = labelled_pair(PANDALM | {"annotator2": 2, "annotator3": 0, "idx": 5})
    assert pair.messages == ({"role": "user", "content": "Say it\n\nhello"},)
    assert (pair.a, pair.b) == ("hi", "ho")
    assert pair.labels == {"annotator1": "a", "annotator2": "b", "annotator3": "tie"}


@pytest.mark.parametrize(
    ("row", "labels"),
    [
        (VOTE | {"evaluator": "me"}, {"me": "b"}),
        (VOTE | {"evaluator": "me", "preference": "tie"}, {"me": "tie"}),
        ({"prompt": "p", "answer_a": "x", "answer_b": "y", "label": "a", "evaluator": "me"}, {"me": "a"}),
        ({"prompt": "p", "answer_a": "x", "answer_b": "y", "labels": ["a", None, "tie"]}, {"0": "a", "2": "tie"}),
    ],
)
def test_votes(row: dict[str, Any], labels: dict[str, str]) -> None:
    assert labelled_pair(row).labels == labels


def test_the_chosen_answer_lies_on_either_side_and_always_on_the_same() -> None:
    rows = [{"prompt": f"p{number}", "chosen": "yes", "rejected": "no"} for number in range(60)]
    pairs = [labelled_pair(row) for row in rows]
    for pair in pairs:
        assert (pair.a if pair.labels["chosen"] == "a" else pair.b) == "yes"
    assert 15 < sum(pair.labels["chosen"] == "a" for pair in pairs) < 45
    assert [labelled_pair(row) for row in rows] == pairs
    # which answer was chosen does not tell the side
    exchanged = labelled_pair({"prompt": "p1", "chosen": "no", "rejected": "yes"})
    assert {exchanged.labels["chosen"], pairs[1].labels["chosen"]} == {"a", "b"} or exchanged.a != pairs[1].a


def test_another_persons_label_in_the_other_order() -> None:
    one = labelled_pair(VOTE | {"evaluator": "one"})
    other = labelled_pair(
        {"prompt": "Say it", "completion_a": "ho", "completion_b": "hi", "preference": "a-is-better", "evaluator": "2"}
    )
    again = labelled_pair(VOTE | {"evaluator": "one", "preference": "tie"})
    (pair,) = merged([one, other, again])
    assert (pair.a, pair.labels) == ("hi", {"one": "tie", "2": "b"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (VOTE | {"preference": None}, "unscored"),
        (VOTE | {"completion_b": "hi"}, "identical_pair"),
        (VOTE | {"completion_b": 5}, "not_text"),
        (PANDALM | {"annotator1": 7}, "unscored"),
        ({"question": "?"}, "unknown_layout"),
    ],
)
def test_what_is_no_labelled_pair(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Dropped) as dropped:
        labelled_pair(row)
    assert str(dropped.value.reason) == reason


def test_an_empty_answer_is_one() -> None:
    assert labelled_pair(PANDALM | {"response2": ""}).b == ""


@pytest.mark.parametrize(
    ("name", "rows", "pairs", "by_people"),
    [
        ("preferences/pandalm_testset.json", 993, 861, {3: 861}),
        ("judged/tulu1_human_votes.jsonl.gz", 805, 696, {1: 609, 2: 72, 3: 15}),
        ("preferences/hh_rlhf_harmless_test.jsonl.gz", 2303, 2303, {1: 2303}),
    ],
)
def test_real_files(outside_data: Path, name: str, rows: int, pairs: int, by_people: dict[int, int]) -> None:
    found: list[LabelledPair] = []
    for row in recorded_files.read(str(outside_data / name)).rows:
        try:
            found.append(labelled_pair(row))
        except Dropped:
            continue
    several = merged(found)
    assert (len(found), len(several), Counter(len(each.labels) for each in several)) == (rows, pairs, by_people)
