"""Which pairs follow from ratings by several raters: by hand, and for any ratings as exact fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.binarize import Rule, binarize
from zephyr_ray.data.shared_ratings import exact, shared_means
from zephyr_ray.judging.aggregation import Outcome, judged_row
from zephyr_ray.judging.parsing.rating import Rating
from zephyr_ray.judging.prompt import Question
from zephyr_ray.schemas import ASPECTS, Dropped, Reason

Ratings = dict[tuple[str, str], float]
"""Of a completion, by (judge, aspect)."""


def judged(*completions: Ratings) -> list[dict[str, Any]]:
    """The completions as judges' ratings are aggregated."""
    asked = sorted({key for each in completions for key in each})
    order = tuple(range(len(completions)))
    outcomes = [
        Outcome(
            Question(judge=judge, repeat=0, is_reversed=False, aspect=aspect, order=order),
            tuple(Rating(each.get((judge, aspect)), None) for each in completions),
            (),
        )
        for judge, aspect in asked
    ]
    row = {"prompt_id": "p", "messages": [], "completions": [{"model": f"m{n}", "content": f"a{n}"} for n in order]}
    return judged_row(row, outcomes)["completions"]


def overall(**ratings: float) -> Ratings:
    return {(judge, "overall"): rating for judge, rating in ratings.items()}


def pairs(completions: list[dict[str, Any]], **rule: Any) -> set[tuple[str, str]]:
    made = binarize(completions, Rule(**rule))
    return {(str(chosen.model), str(rejected.model)) for chosen, rejected in made}


def reason(completions: list[dict[str, Any]], **rule: Any) -> Reason:
    with pytest.raises(Dropped) as caught:
        binarize(completions, Rule(**rule))
    return caught.value.reason


def test_a_lenient_judge_of_one_answer_decides_nothing() -> None:
    completions = judged(overall(harsh=4), overall(harsh=2, lenient=8))
    assert [each["overall_score"] for each in completions] == [4.0, 5.0]
    assert pairs(completions) == {("m0", "m1")}
    ((chosen, rejected),) = binarize(completions)
    assert (chosen.score, rejected.score) == (4.0, 2.0)  # those of the one that rated both


def test_an_aspect_of_one_answer_decides_nothing() -> None:
    full = dict(zip((("j", aspect) for aspect in ASPECTS), (5.0, 5.0, 5.0, 4.0), strict=True))
    completions = judged({("j", ASPECTS[0]): 5}, full)
    assert reason(completions, score="aspects") == Reason.TIE  # 5 and 5, where one has 5 on average and one 4.75


def test_answers_that_share_no_rater_are_no_pair() -> None:
    assert reason(judged(overall(a=4), overall(b=2))) == Reason.NO_SHARED_RATER
    assert reason(judged(overall(a=4), overall(b=2)), rejected="every_pair") == Reason.NO_SHARED_RATER
    assert pairs(judged(overall(a=4), overall(b=2), overall(a=3, b=1)), rejected="every_pair") == {
        ("m0", "m2"),
        ("m1", "m2"),
    }


@pytest.mark.parametrize(
    ("high", "low", "margin", "is_pair"),
    [(4.2, 4.1, 0.1, False), (3.3, 3.0, 0.3, False), (3.3, 3.0, 0.29, True), (1e-9, 0.0, 0.0, True)],
)
def test_decimals_are_what_they_are_written_as(high: float, low: float, margin: float, is_pair: bool) -> None:
    completions = [{"content": str(score), "overall_score": score} for score in (high, low)]
    if is_pair:
        assert len(binarize(completions, Rule(margin=margin))) == 1
    else:
        assert reason(completions, margin=margin) == Reason.TIE


def test_a_score_that_is_not_the_mean_of_the_opinions_counts() -> None:
    completions = judged(overall(a=4), overall(a=2))
    completions[0]["overall_score"] = 1.0
    assert pairs(completions) == {("m1", "m0")}


@given(st.lists(st.fractions(0, 10, max_denominator=60), min_size=1, max_size=9))
def test_a_mean_in_floats_is_the_fraction(values: list[Fraction]) -> None:
    mean = sum(values, Fraction()) / len(values)
    few = mean.limit_denominator(10_000)
    assert exact(float(few)) == few


THIRDS = st.fractions(1, 5, max_denominator=3)
KEYS = list(itertools.product(("a", "b", "c"), ("honesty", "helpfulness")))
RATED = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([1, 2, 3, 4, 5, 2.5]), min_size=1)


@given(st.lists(RATED, min_size=2, max_size=4), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_a_pair_if_and_only_if_the_shared_means_differ_by_more(completions: list[Ratings], margin: float) -> None:
    expected = set()
    for a, b in itertools.permutations(range(len(completions)), 2):
        lead = plain_lead(completions[a], completions[b])
        if lead is not None and lead > Fraction(str(margin)):
            expected.add((f"m{a}", f"m{b}"))
    rows = judged(*completions)
    rule = {"score": "aspects", "margin": margin}
    if not expected:
        assert reason(rows, rejected="every_pair", **rule) in (Reason.TIE, Reason.NO_SHARED_RATER)
        return
    assert pairs(rows, rejected="every_pair", **rule) == expected
    assert drawn(rows, **rule) <= expected


def drawn(completions: list[dict[str, Any]], **rule: Any) -> set[tuple[str, str]]:
    """As `pairs`; none where the one that leads on average leads none by the margin."""
    try:
        return pairs(completions, **rule)
    except Dropped:
        return set()


def plain_lead(a: Ratings, b: Ratings) -> Fraction | None:
    """The mean over aspects of the mean difference of the raters of both, in fractions alone."""
    leads = []
    for aspect in ("honesty", "helpfulness"):
        shared = [key for key in a.keys() & b.keys() if key[1] == aspect]
        if shared:
            leads.append(sum((Fraction(a[key]) - Fraction(b[key]) for key in shared), Fraction()) / len(shared))
    return sum(leads, Fraction()) / len(leads) if leads else None


@given(st.lists(RATED, min_size=2, max_size=4), st.integers(0, 20), st.sampled_from(["random_lower", "lowest"]))
def test_no_pair_contradicts_every_rater_of_both(completions: list[Ratings], seed: int, rejected: Any) -> None:
    for chosen, lost in drawn(judged(*completions), score="aspects", seed=seed, rejected=rejected):
        a, b = (completions[int(name[1:])] for name in (chosen, lost))
        assert any(a[key] > b[key] for key in a.keys() & b.keys())


@given(st.lists(THIRDS, min_size=4, max_size=4), st.permutations(range(4)))
def test_equal_means_of_thirds_tie_in_any_order(ratings: list[Fraction], order: list[int]) -> None:
    annotations = [
        {aspect: {"rating": float(ratings[n])} for aspect, n in zip(ASPECTS, numbers, strict=True)}
        for numbers in (range(4), order)
    ]
    completions = [{"content": str(n), "annotations": each} for n, each in enumerate(annotations)]
    assert reason(completions, score="aspects") == Reason.TIE


def test_shared_means_by_hand() -> None:
    a = {"honesty": {("j", "0"): 4.0, ("k", "0"): 1.0}, "helpfulness": {("j", "0"): 5.0}}
    b = {"honesty": {("j", "0"): 3.0}, "helpfulness": {("j", "0"): 2.0, ("k", "0"): 9.0}}
    assert shared_means(a, b) == (Fraction(9, 2), Fraction(5, 2))
    assert shared_means(a, {"honesty": {("z", "0"): 1.0}}) is None


# --- answers that were cut at the maximum of tokens


def cut(*scores: float, which: tuple[int, ...]) -> list[dict[str, Any]]:
    return [
        {
            "model": f"m{n}",
            "content": f"a{n}",
            "overall_score": score,
            "finish_reason": "length" if n in which else "stop",
        }
        for n, score in enumerate(scores)
    ]


def test_a_cut_answer_loses_and_never_wins() -> None:
    rows = cut(9, 6, 3, which=(0, 2))
    assert pairs(rows) == {("m1", "m2")}
    assert pairs(rows, rejected="every_pair") == {("m1", "m2")}
    assert pairs(rows, cut_answers="keep", rejected="lowest") == {("m0", "m2")}
    ((chosen, rejected),) = binarize(rows)
    assert (chosen.is_cut, rejected.is_cut) == (False, True)
    assert reason(cut(9, 6, which=(0, 1))) == Reason.CUT_OFF
    assert reason(cut(9, 6, which=(0,)), rejected="every_pair") == Reason.CUT_OFF
    assert reason(cut(9, 6, which=(0,))) == Reason.TIE  # none scores below the only whole one
