"""Aggregate judges' ratings of a row of `candidates` into a row of `judgments`. Every rating is kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.judging.parsing.rating import Rating
from zephyr_ray.judging.prompt import Question
from zephyr_ray.judging.rubrics import OVERALL
from zephyr_ray.schemas import ASPECTS, COMPLETION, storable

Row = Mapping[str, Any]

_REASON_LENGTH = 300


@dataclass(frozen=True)
class Outcome:
    """The outcome of a question to a judge."""

    question: Question
    ratings: tuple[Rating, ...]
    """One for each completion in the order shown; the values are null if no reply could be read."""
    replies: tuple[dict[str, Any], ...]
    """Every raw reply (`schemas.JUDGE_REPLY`), including those that could not be read."""
    failure: str | None = None
    """Why the server gave no reply, or None if it replied."""


def judged_row(row: Row, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A row of `judgments`. Means leave out null ratings and those of the position check.

    Args:
        row: A row of `candidates`.
        outcomes: In the order of `prompt.questions_of`, which `opinions` and `replies` keep.
    """
    return {
        "prompt_id": row["prompt_id"],
        "messages": row["messages"],
        "completions": [
            _judged_completion(completion, _opinions_of(number, outcomes))
            for number, completion in enumerate(row["completions"])
        ],
        "replies": [reply for outcome in outcomes for reply in outcome.replies],
        "error": _describe_failures(outcomes),
    }


def scored_row(row: Row, scores: Sequence[float | None]) -> dict[str, Any]:
    """A row of `judgments` by a judge that gives only one number per completion (a function, a reward model)."""
    completions = [
        {**_judged_completion(completion, []), "overall_score": score}
        for completion, score in zip(row["completions"], scores, strict=True)
    ]
    return {
        "prompt_id": row["prompt_id"],
        "messages": row["messages"],
        "completions": completions,
        "replies": [],
        "error": None,
    }


def _opinions_of(number: int, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Records of `schemas.OPINION`: one for each question that showed the completion."""
    made = []
    for outcome in outcomes:
        question = outcome.question
        if number not in question.order:
            continue
        position = question.order.index(number)
        rating, rationale = outcome.ratings[position]
        made.append(
            {
                "judge": question.judge,
                "repeat": question.repeat,
                "is_reversed": question.is_reversed,
                "position": position,
                "aspect": question.aspect,
                "rating": rating,
                "rationale": rationale,
            }
        )
    return made


def _judged_completion(completion: Row, opinions: list[dict[str, Any]]) -> dict[str, Any]:
    """A completion with its ratings. Without an overall rating the score is null: aspects never replace it."""
    overall = _summary(OVERALL, opinions)
    return {
        **{field.name: completion.get(field.name) for field in COMPLETION},
        "annotations": {aspect: _summary(aspect, opinions) for aspect in ASPECTS},
        "overall_score": overall and overall["rating"],
        "overall_spread": overall and overall["spread"],
        "critique": overall and overall["rationale"],
        "opinions": opinions,
    }


def _summary(aspect: str, opinions: Sequence[Row]) -> dict[str, Any] | None:
    """Mean, standard deviation (over n) and first rationale of one aspect; None if no judge was asked about it."""
    counted = [each for each in opinions if each["aspect"] == aspect and not each["is_reversed"]]
    if not counted:
        return None
    ratings = [each["rating"] for each in counted if each["rating"] is not None]
    return {
        "rating": statistics.fmean(ratings) if ratings else None,
        "spread": statistics.pstdev(ratings) if len(ratings) > 1 else None,
        "rationale": next((each["rationale"] for each in counted if each["rationale"] is not None), None),
    }


def _describe_failures(outcomes: Sequence[Outcome]) -> str | None:
    """`judge (aspects a, b): reason; ...`, one part for each judge and reason."""
    failed: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.failure is not None:
            reason = " ".join(storable(outcome.failure).split())[:_REASON_LENGTH]
            failed.setdefault((outcome.question.judge, reason), []).append(outcome.question.aspect)
    parts = [f"{judge} ({', '.join(dict.fromkeys(aspects))}): {reason}" for (judge, reason), aspects in failed.items()]
    return "; ".join(parts) or None
