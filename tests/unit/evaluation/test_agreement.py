"""Agreement of verdicts with labels, with the other order and with a second asking: every number by hand."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from zephyr_ray.evaluation.agreement import (
    Judged,
    Verdict,
    agreement,
    as_json,
    cohens_kappa,
    kappa_interval,
    table_lines,
)


def judged(*rows: tuple[Verdict | None, Verdict | None]) -> list[Judged]:
    """Rows of a label and a verdict."""
    return [Judged(number, label, {"verdict": verdict}) for number, (label, verdict) in enumerate(rows)]


SIX: list[tuple[Verdict | None, Verdict | None]] = [
    ("a", "a"),
    ("a", "b"),
    ("b", "b"),
    ("b", "b"),
    ("tie", "tie"),
    ("tie", "a"),
]


def test_accuracy_and_kappa_by_hand() -> None:
    result = agreement(judged(*SIX, ("a", None), (None, "b"), (None, None)))
    assert result.accuracy[:3] == (pytest.approx(4 / 6), 6, 7)
    # by chance: labels 2, 2, 2, verdicts 2, 3, 1 of a, b, tie: (4 + 6 + 2) / 36 = 1/3; (2/3 - 1/3) / (1 - 1/3)
    assert result.kappa[:3] == (pytest.approx(0.5), 6, 7)
    assert result.parse_rate[:3] == (pytest.approx(7 / 9), 9, 9)
    assert result.confusion["tie"] == {"a": 1, "b": 0, "tie": 1}
    assert as_json(result)["n"] == 6


def test_cohens_own_kind_of_table() -> None:
    """Two raters, 50 units: 35 agree, chance gives 25."""
    assert cohens_kappa({("a", "a"): 20, ("a", "b"): 5, ("b", "a"): 10, ("b", "b"): 15}) == pytest.approx(0.4)


def test_a_judge_that_always_says_the_same_is_right_often_and_knows_nothing() -> None:
    always_a: list[tuple[Verdict | None, Verdict | None]] = [("a", "a")] * 9
    result = agreement(judged(*always_a, ("b", "a")))
    assert (result.accuracy.value, result.kappa.value) == (0.9, 0.0)
    constant = agreement(judged(("a", "a"), ("a", "a")))
    assert (constant.accuracy.value, constant.kappa) == (1.0, (None, 2, 2, None))
    assert table_lines(constant)[-1].startswith("no kappa: ")


def test_opposite_verdicts_have_a_negative_kappa() -> None:
    assert cohens_kappa({("a", "b"): 5, ("b", "a"): 5}) == -1.0


def test_the_interval_of_kappa_is_that_of_all_resamples() -> None:
    """Of four rows there are 256 resamples; the interval of 10,000 drawn ones lies at their percentiles."""
    rows = [("a", "a"), ("b", "b"), ("tie", "tie"), ("a", "b")]
    kappas = [cohens_kappa(Counter(drawn)) for drawn in itertools.product(rows, repeat=4)]
    low, high = np.percentile([kappa for kappa in kappas if kappa is not None], [2.5, 97.5])
    assert kappa_interval(Counter(rows)) == (pytest.approx(low), pytest.approx(high))
    assert low < high


def test_the_other_order_and_the_second_time() -> None:
    def row(number: int, verdict: Verdict | None, swapped: Verdict | None, retest: Verdict | None) -> Judged:
        return Judged(number, None, {"verdict": verdict, "swapped_verdict": swapped, "retest_verdict": retest})

    rows = [
        row(0, "a", "a", "a"),
        row(1, "b", "b", "a"),
        row(2, "tie", "tie", "tie"),
        row(3, "a", "b", "a"),  # whichever is shown first
        row(4, "b", "a", None),  # whichever is shown second
        row(5, "a", "b", "a"),
        row(6, "tie", "a", None),
        row(7, "a", None, "a"),
        row(8, None, "a", "a"),
        Judged(9, None, {"verdict": "a"}),  # never asked again
    ]
    result = agreement(rows)
    assert result.swap_consistency[:3] == (pytest.approx(3 / 7), 7, 9)
    assert (result.opposite, result.first_shown, result.tie_in_one) == (3, 2, 1)
    assert result.retest[:3] == (pytest.approx(5 / 6), 6, 9)
    assert result.parse_rate.value == 0.9
    assert (result.accuracy, result.kappa.value) == ((None, 0, 0, None), None)
    told = as_json(result)
    assert told["swapped"] == {"opposite": 3, "first_shown_wins": 2, "second_shown_wins": 1, "tie_in_one": 1}
    assert told["counts"]["retest"] == {"n": 6, "of": 9}


def test_nothing_asked_twice_is_null() -> None:
    told = as_json(agreement(judged(*SIX)))
    assert list(told)[:6] == ["accuracy", "kappa", "swap_consistency", "retest", "parse_rate", "n"]
    assert (told["swap_consistency"], told["retest"]) == (None, None)
