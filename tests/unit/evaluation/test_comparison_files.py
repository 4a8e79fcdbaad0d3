"""Recorded comparisons of every kind that is read, with everything that goes wrong in real ones."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.compared_models import Compared
from zephyr_ray.evaluation.comparison_files import counts, notes, read_comparisons
from zephyr_ray.evaluation.versus import compare


def read(folder: Path, *rows: object, a: str | None = None, b: str | None = None) -> Compared:
    file = folder / "rows.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return read_comparisons(str(file), a, b)


def outcomes(compared: Compared) -> list[float | str | None]:
    return [each.problem if each.outcome is None else each.outcome for each in compared.comparisons]


def test_own_ratings(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"id": 1, "a_score": 7, "b_score": 5, "a_tokens": 10, "b_tokens": 12, "category": "math"},
        {"id": 2, "a_score": 7, "b_score": None},
        {"id": 3, "a_score": 7, "b_score": 7, "a_text": "x", "b_text": "$ERROR$"},
        {"id": 1, "a_score": 4, "b_score": 5, "group": "p", "a_text": "same", "b_text": "same"},
        '{"id": 4, "a_sc',
    )
    assert outcomes(found) == [0.0, "no_score", "answer_error"]
    first = found.comparisons[0]
    assert (first.prompt, first.scores, first.tokens, first.characters) == ("p", (4, 5), None, (4, 4))
    assert first.is_same_answer
    assert notes(found) == ["left out of 5 lines: 1 no JSON object, 1 replaced by a later one"]
    assert counts(found)["lines"] == 5


def test_own_verdicts(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"id": 1, "verdict": "a"},
        {"id": 2, "verdict": "a", "swapped_verdict": "b"},
        {"id": 3, "verdict": "a", "swapped_verdict": None},
        {"id": 4, "verdict": None},
    )
    assert outcomes(found) == [1.0, 0.5, "no_verdict", "no_verdict"]
    assert found.comparisons[1].orders == ("a", "b")


def test_fastchats_pairs(tmp_path: Path) -> None:
    pair = {"model_1": "m", "model_2": "n", "g1_winner": "model_1", "judge": ["gpt-4", "pair-v2"], "turn": 1}
    rows = [
        pair | {"question_id": 1, "g2_winner": "model_1"},
        pair | {"question_id": 2, "g2_winner": "model_2"},
        pair | {"question_id": 3, "g2_winner": "model_1", "g1_judgment": "$ERROR$"},
        pair | {"question_id": 4, "g2_winner": "model_1", "model_2": "m"},
        pair | {"question_id": 5, "g2_winner": "model_1", "model_2": "o"},
        pair | {"question_id": 1, "g2_winner": "model_1", "model_1": "n", "model_2": "m", "turn": 2},
    ]
    with pytest.raises(UserError, match="compares several models; name two with --a and --b: m, n, o"):
        read(tmp_path, *rows)
    found = read(tmp_path, *rows, a="n", b="m")
    assert outcomes(found) == [0.0, 0.5, "judge_error", 1.0]
    assert found.comparisons[1].orders == ("a", "b")
    assert (found.with_itself, found.others) == (1, 1)
    assert [each.prompt for each in found.comparisons] == [1, 2, 3, 1]


def test_fastchats_single_scores(tmp_path: Path) -> None:
    def judged(question: int, model: str, score: float, turn: int = 1, **more: object) -> dict[str, Any]:
        return {"question_id": question, "model": model, "score": score, "turn": turn, "judge": ["j", "s"], **more}

    found = read(
        tmp_path,
        judged(1, "m", 8),
        judged(1, "n", 5),
        judged(1, "m", 4, turn=2, sample=0),
        judged(1, "m", 8, turn=2, sample=1),
        judged(1, "n", 6, turn=2),
        judged(2, "m", -1),
        judged(2, "n", 6),
        judged(3, "m", 6),
    )
    assert outcomes(found) == [1.0, 0.5, "no_score"]
    assert compare("m", "n", found.comparisons).prompts == 1


def test_alpaca_evals_annotations(tmp_path: Path) -> None:
    row = {"generator_1": "base", "generator_2": "m", "instruction": "x", "output_1": "abc", "output_2": "de"}
    rows = [row | {"preference": each} for each in (1.9, 1.0, 0.0, None)]
    found = read(tmp_path, *rows)
    assert (found.a, found.b) == ("m", "base")
    assert outcomes(found) == [pytest.approx(0.9), 0.0, 0.5, "null"]
    assert found.comparisons[0].characters == (2, 3)
    assert outcomes(read(tmp_path, *rows, a="base"))[:2] == [pytest.approx(0.1), 1.0]
    with pytest.raises(UserError, match="compares base with itself; there is nothing to tell"):
        read(tmp_path, rows[0] | {"generator_2": "base"})


def test_rated_completions(tmp_path: Path) -> None:
    def row(prompt: str, **scores: float | None) -> dict[str, Any]:
        completions = [{"model": name, "response": name * 2, "overall_score": each} for name, each in scores.items()]
        return {"prompt_id": prompt, "completions": completions}

    several = row("4", m=3, n=2)
    several["completions"].append({"model": "m", "response": "$ERROR$", "overall_score": 9})
    rows = [row("1", m=5, n=3, o=1), row("2", m=None, n=3), row("3", n=1, o=2), several, row("1", m=1, n=3)]
    found = read(tmp_path, *rows, {"prompt_id": "5", "completions": None}, a="m", b="n")
    assert outcomes(found) == [0.0, "no_score", 1.0, "answer_error"]
    assert (found.repeated, found.incomplete, found.others) == (1, 1, 1)
    assert found.comparisons[0].characters == (2, 2)
    with pytest.raises(UserError, match=r"has no ratings of p: m, n, o"):
        read(tmp_path, *rows, a="p", b="n")
    with pytest.raises(UserError, match="--a and --b name one model, m"):
        read(tmp_path, *rows, a="m", b="m")


def opinion(rating: float | None, position: int, is_reversed: bool, aspect: str = "overall") -> dict[str, Any]:
    where = {"judge": "j", "repeat": 0, "is_reversed": is_reversed, "position": position}
    return where | {"aspect": aspect, "rating": rating, "rationale": None}


def test_ratings_in_both_orders_that_disagree_are_a_tie(tmp_path: Path) -> None:
    """The judge gives the answer that it sees first 7 and the other one 5, and the mean leaves the check out."""

    def completion(model: str, first: float, second: float | None, position: int) -> dict[str, Any]:
        opinions = [opinion(first, position, False), opinion(second, 1 - position, True)]
        return {"model": model, "content": model, "overall_score": first, "opinions": opinions}

    biased = {"prompt_id": "1", "completions": [completion("m", 7, 5, 0), completion("n", 5, 7, 1)]}
    steady = {"prompt_id": "2", "completions": [completion("m", 4, 3, 1), completion("n", 6, 5, 0)]}
    unread = {"prompt_id": "3", "completions": [completion("m", 7, None, 0), completion("n", 5, 7, 1)]}
    found = read(tmp_path, biased, steady, unread)
    assert outcomes(found) == [0.5, 0.0, 1.0]
    assert [each.orders for each in found.comparisons] == [("a", "b"), ("b", "b"), None]


def test_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no row is a comparison; .*\(here are something\)"):
        read(tmp_path, {"something": 1})
    with pytest.raises(UserError, match="row 1: a_score 'high' is neither a number nor null"):
        read(tmp_path, {"a_score": "high", "b_score": 1})


@pytest.mark.parametrize(
    ("name", "a", "b", "numbers"),
    [
        ("judged/arena_bench_v1.jsonl.gz", "gpt-4-0314", "claude-2.1", (184, 35, 77, 300)),
        ("judged/arena_hard_swapped.jsonl.gz", "gpt-4o", None, (71, 3, 19, 93)),
        ("evaluation/alpaca_eval_1_zephyr-7b-alpha.json.gz", None, None, (688, 113, 3, 805)),
    ],
)
def test_real_files(
    outside_data: Path, name: str, a: str | None, b: str | None, numbers: tuple[int, int, int, int]
) -> None:
    found = read_comparisons(str(outside_data / name), a, b)
    result = compare(found.a, found.b, found.comparisons)
    assert (result.wins, result.losses, result.ties, result.comparisons) == numbers
    assert result.length_controlled.reason is None


def test_real_ratings_of_equal_models(outside_data: Path, tmp_path: Path) -> None:
    """Two samples of one model whose sides are drawn by lot: there is no winner, and the intervals say so."""
    with gzip.open(outside_data / "judged/tulu2_best_of_8_gpt4turbo.jsonl.gz", "rt") as file:
        rows = [json.loads(line)["completions"] for line in file]
    rng = random.Random(0)
    drawn = [rng.sample([answers[0]["preference"], answers[7]["preference"]], 2) for answers in rows]
    found = read(tmp_path, *({"id": place, "a_score": a, "b_score": b} for place, (a, b) in enumerate(drawn)))
    result = compare("a", "b", found.comparisons)
    assert result.win_rate.interval is not None
    assert result.win_rate.interval[0] < 0.5 < result.win_rate.interval[1]
    assert result.sequential is not None
    assert result.sequential.decision.winner is None
