"""Comparisons of rated answers: two models of a prompt's `completions` (`schemas.JUDGMENTS`, UltraFeedback)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from zephyr_ray.data.binarize import Rule, ratings, scores_in_use
from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.comparison import Comparison, of_texts, outcome_of_scores, outcome_of_verdicts
from zephyr_ray.evaluation.recorded_files import ERROR, number
from zephyr_ray.schemas import Dropped

Row = Mapping[str, Any]


class RatedAnswer(NamedTuple):
    """An answer with its rating."""

    score: float | None
    problem: str | None = None
    """Why there is no rating."""
    text: str | None = None
    tokens: float | None = None
    opinions: Sequence[Row] = ()
    """`schemas.OPINION` of each time that it was rated, where these were kept."""


class RatedPrompt(NamedTuple):
    """A prompt with its rated answers, by model."""

    prompt: Hashable
    answers: Mapping[str, Sequence[RatedAnswer]]


def rated_prompt(row: Row) -> RatedPrompt | None:
    """A row {prompt_id, or the prompt, completions: [{model, content or response, scores}]}; None if it is none."""
    completions = row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(each, dict) for each in completions):
        return None
    try:
        rated = [ratings(each) for each in completions]
        _, scores = scores_in_use(completions, rated, Rule())
    except Dropped:
        scores = [None] * len(completions)
    answers: dict[str, list[RatedAnswer]] = {}
    for completion, score in zip(completions, scores, strict=True):
        answers.setdefault(str(completion.get("model")), []).append(_rated_answer(completion, score))
    return RatedPrompt(_prompt_of(row), answers)


def _prompt_of(row: Row) -> str:
    for key in ("prompt_id", "instruction", "prompt", "messages"):
        if row.get(key) is not None:
            return json.dumps(row[key], sort_keys=True)
    return json.dumps(row, sort_keys=True, default=str)


def _rated_answer(completion: Row, score: float | None) -> RatedAnswer:
    text = completion.get("content", completion.get("response"))
    text = text if isinstance(text, str) else None
    is_error = text is not None and text.strip() == ERROR
    problem = "answer_error" if is_error else "no_score" if score is None else None
    opinions = completion.get("opinions") or ()
    return RatedAnswer(None if problem else score, problem, text, number(completion.get("tokens")), opinions)


def compare_answers(rated: RatedPrompt, a: str, b: str) -> list[Comparison]:
    """Each answer of A with each of B, as the recipe's `samples` may have made several; none if a model has none.

    An answer wins that is rated higher. Where a judge has seen both answers in both orders, it wins if both orders say
    so, and orders that disagree are a tie.
    """
    return [
        _compare(rated.prompt, first, second)
        for first in rated.answers.get(a, ())
        for second in rated.answers.get(b, ())
    ]


def _compare(prompt: Hashable, a: RatedAnswer, b: RatedAnswer) -> Comparison:
    characters, is_same_answer = of_texts(a.text, b.text)
    scores = (a.score, b.score) if a.score is not None and b.score is not None else None
    orders = both_orders(a.opinions, b.opinions) if scores else None
    outcome = None
    if scores:
        outcome = outcome_of_verdicts(*orders) if orders else outcome_of_scores(*scores)
    return Comparison(
        prompt,
        outcome,
        a.problem or b.problem,
        scores=scores,
        orders=orders,
        tokens=(a.tokens, b.tokens) if a.tokens is not None and b.tokens is not None else None,
        characters=characters,
        is_same_answer=is_same_answer,
    )


class Shown(NamedTuple):
    """One showing of two answers together, with their ratings."""

    a: float | None
    b: float | None
    a_first: bool


def showings(a: Sequence[Row], b: Sequence[Row]) -> dict[tuple[str, int, bool], Shown]:
    """The ratings of two answers that a judge saw together, by (judge, repeat, is_reversed).

    Args:
        a: Opinions of A's answer.
        b: Opinions of B's.
    """
    of_a, of_b = _by_showing(a), _by_showing(b)
    found = {}
    for key in of_a.keys() & of_b.keys():
        places = of_a[key][0]["position"], of_b[key][0]["position"]
        if places[0] != places[1]:  # one_by_one shows each alone, in the place 0
            found[key] = Shown(rating_of(of_a[key]), rating_of(of_b[key]), places[0] < places[1])
    return dict(sorted(found.items()))


def rating_of(opinions: Sequence[Row]) -> float | None:
    """The overall rating where it was asked for, else the mean of the aspects; None if it could not be read."""
    overall = [each["rating"] for each in opinions if each["aspect"] == "overall"]
    ratings = [rating for rating in overall or [each["rating"] for each in opinions] if rating is not None]
    return statistics.fmean(ratings) if ratings else None


def both_orders(a: Sequence[Row], b: Sequence[Row]) -> tuple[Verdict, Verdict] | None:
    """The verdicts with A shown first and with B shown first, of the judges and repeats that saw both orders."""
    seen = showings(a, b)
    differences: dict[bool, list[float]] = {True: [], False: []}
    for (judge, repeat, is_reversed), shown in seen.items():
        other = seen.get((judge, repeat, not is_reversed))
        if other and None not in (shown.a, shown.b, other.a, other.b):
            assert shown.a is not None
            assert shown.b is not None
            differences[shown.a_first].append(shown.a - shown.b)
    if not (differences[True] and differences[False]):
        return None
    return verdict_of_difference(sum(differences[True])), verdict_of_difference(sum(differences[False]))


def verdict_of_difference(difference: float) -> Verdict:
    """Which answer is rated higher, by A's rating minus B's."""
    return "a" if difference > 0 else "b" if difference < 0 else "tie"


def _by_showing(opinions: Sequence[Row]) -> dict[tuple[str, int, bool], list[Row]]:
    groups: dict[tuple[str, int, bool], list[Row]] = {}
    for each in opinions:
        groups.setdefault((each["judge"], each["repeat"], each["is_reversed"]), []).append(each)
    return groups
