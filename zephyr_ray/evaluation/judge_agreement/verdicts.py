"""A judge's verdicts on two answers, from its ratings of them (`schemas.JUDGMENTS`)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.rated_completions import Shown, rating_of, showings, verdict_of_difference

Row = Mapping[str, Any]


def replies_of(a: Row, b: Row, judge: str | None = None) -> dict[str, Verdict | None]:
    """What the judge said, by the names of `agreement.REPLIES`; what was not asked is not there.

    `verdict` is that with A shown first, `swapped_verdict` that with B first, both of the first repeat, and
    `retest_verdict` that of the second repeat with A first. Of a function or a reward model, and of a judge that sees
    answers one by one, no order is there to be swapped.

    Args:
        a: A judged completion (`schemas.JUDGED_COMPLETION`).
        b: The other one.
        judge: Only this judge's. None: the mean of all.
    """
    first, second = ([each for each in side["opinions"] or () if judge in (None, each["judge"])] for side in (a, b))
    if not (first or second):
        return {"verdict": _verdict([(a["overall_score"], b["overall_score"])])}
    seen = showings(first, second)
    if not seen:
        return _one_by_one(first, second)
    asked = {"verdict": (0, True), "swapped_verdict": (0, False), "retest_verdict": (1, True)}
    shown = {name: _shown(seen, repeat, a_first) for name, (repeat, a_first) in asked.items()}
    return {name: _verdict(each) for name, each in shown.items() if each}


def judges_of(rows: Iterable[Row]) -> list[str]:
    """The names of all judges that gave an opinion."""
    return sorted(
        {each["judge"] for row in rows for completion in row["completions"] for each in completion["opinions"] or ()}
    )


def _shown(
    seen: Mapping[tuple[str, int, bool], Shown], repeat: int, a_first: bool
) -> list[tuple[float | None, float | None]]:
    return [(each.a, each.b) for (_, at, _), each in seen.items() if at == repeat and each.a_first == a_first]


def _one_by_one(a: Sequence[Row], b: Sequence[Row]) -> dict[str, Verdict | None]:
    replies = {}
    judges = dict.fromkeys(each["judge"] for each in a)
    for repeat, name in enumerate(("verdict", "retest_verdict")):
        both = [
            [[each for each in side if (each["judge"], each["repeat"]) == (judge, repeat)] for side in (a, b)]
            for judge in judges
        ]
        rated = [(rating_of(first), rating_of(second)) for first, second in both if first and second]
        if rated:
            replies[name] = _verdict(rated)
    return replies


def _verdict(ratings: Iterable[tuple[float | None, float | None]]) -> Verdict | None:
    """By the mean difference of the ratings of both answers; None where there are none."""
    differences = [a - b for a, b in ratings if a is not None and b is not None]
    return verdict_of_difference(statistics.fmean(differences)) if differences else None
