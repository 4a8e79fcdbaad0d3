"""Recorded verdicts on pairs: our own lines and Arena-Hard's games, with everything that goes wrong in real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.agreement import agreement
from zephyr_ray.evaluation.judged_files import JudgedFile, notes, read_judged


def read(folder: Path, *rows: object) -> JudgedFile:
    file = folder / "judged.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return read_judged(str(file))


def test_own_lines(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"id": 1, "label": "a", "verdict": "b", "swapped_verdict": None},
        {"id": "x", "label": None, "verdict": "tie", "retest_verdict": "a"},
        {"id": 1, "label": "a", "verdict": "a"},
        '{"id": 3, "label": "b", "verd',
    )
    assert [(row.id, row.label, dict(row.replies)) for row in found.judged] == [
        (1, "a", {"verdict": "a"}),
        ("x", None, {"verdict": "tie", "retest_verdict": "a"}),
    ]
    assert notes(found) == ["left out of 4 lines: 1 no JSON object, 1 replaced by a later one with the same id"]


def test_a_row_without_a_verdict_is_one_that_could_not_be_parsed(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": 1, "label": "a", "verdict": "a"}, {"id": 2, "label": "a"})
    assert agreement(found.judged).parse_rate[:3] == (0.5, 2, 2)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"id": 1, "label": "a", "verdict": "A"}, r"row 1: verdict 'A' is none of a, b, tie and null"),
        ({"id": 1, "label": 1, "verdict": "a"}, r"row 1: label 1 is none of a, b, tie and null"),
        ({"id": 1, "label": "a"}, "no row has a verdict"),
        ({"games": [{}]}, "row 1: Arena-Hard's games are two"),
    ],
)
def test_what_is_no_verdict_is_refused(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(tmp_path, row)


def game(score: object, judgment: str = "why", a: str = "one", b: str = "two") -> dict[str, Any]:
    answers = "".join(
        f"<|The Start of Assistant {side}'s Answer|>\n{text}\n<|The End of Assistant {side}'s Answer|>\n\n"
        for side, text in (("A", a), ("B", b))
    )
    return {"user_prompt": f"<|User Prompt|>\nWhat?\n\n{answers}", "judgment": judgment, "score": score}


@pytest.mark.parametrize(
    ("games", "verdicts"),
    [
        ((game("A>B"), game("B>A")), ("a", "a")),  # the same answer, which is B in the second game
        ((game("A>>B"), game("B>A")), ("a", "a")),
        ((game("B>>A"), game("A>B")), ("b", "b")),
        ((game("A>B"), game("A>>B")), ("a", "b")),  # the one that is shown first
        ((game("[A=B]", "My final verdict is tie: [[A=B]]"), game("[[A=B]]")), ("tie", "tie")),
        ((game("A=B"), game(None, "\n\n")), ("tie", None)),
        ((game("A>>A"), game("A<B")), (None, None)),
        ((game(None, "\n$ERROR$\n$ERROR$"), game("A>B", "$ERROR$")), (None, None)),
    ],
)
def test_arena_hard_games(
    tmp_path: Path, games: tuple[dict[str, Any], dict[str, Any]], verdicts: tuple[str | None, str | None]
) -> None:
    (row,) = read(tmp_path, {"question_id": "q", "model": "m", "judge": "j", "games": list(games)}).judged
    assert row.replies == {"verdict": verdicts[0], "swapped_verdict": verdicts[1]}
    assert row.label is None


def test_a_failed_answer_is_not_judged_and_an_answer_against_itself_is_told(tmp_path: Path) -> None:
    failed = [game("A>>B", b="$ERROR$"), game("B>>A", a="$ERROR$")]
    itself = [game("A=B", a="same", b="same"), game("A=B", a="same", b="same")]
    mentions = [game("A>B", a="The log says $ERROR$ here"), game("B>A")]
    found = read(
        tmp_path, *({"question_id": name, "games": games} for name, games in enumerate((failed, itself, mentions)))
    )
    assert len(found.judged) == 2
    assert (found.left_out, found.same_answers) == ({"answer_error": 1}, 1)
    assert notes(found) == [
        "left out of 3 lines: 1 with the answer $ERROR$",
        "rows that compare an answer with itself, which count: 1",
    ]


EXPECTED = {
    # worked out from the files by other means: rows, answers that failed, same, opposite, a tie in one order, a null
    "arena_hard_swapped.jsonl.gz": (1197, 154, 770, 112, 76, 85),
    "arena_ta_swapped_gpt-4o.jsonl.gz": (744, 0, 333, 295, 115, 1),
    "mt_bench_swapped_gpt-4o.jsonl.gz": (378, 0, 284, 58, 36, 0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_judgments_in_both_orders(outside_data: Path, name: str) -> None:
    found = read_judged(str(outside_data / "judged" / name))
    result = agreement(found.judged)
    swap = result.swap_consistency
    same = round((swap.value or 0) * swap.n)
    nulls = len(found.judged) - swap.n
    failed = found.left_out.get("answer_error", 0)
    assert (found.lines, failed, same, result.opposite, result.tie_in_one, nulls) == EXPECTED[name]
