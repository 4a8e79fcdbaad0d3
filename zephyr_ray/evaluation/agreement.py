"""How well a judge agrees with labels, with itself in the other order, and with itself asked again.

accuracy: of the rows with a label and a verdict, the share in which they are equal; `tie` is a value like the others.
kappa: Cohen's kappa of the same rows over `a`, `b` and `tie`: the agreement beyond that of two raters who give each
    value as often, but independently (Cohen, Educational and Psychological Measurement 20, 1960, pages 37 to 46).
swap consistency: of the rows with a verdict in both orders of the answers, the share in which it is the same (what
    arXiv 2306.05685 calls consistency, in its table of position bias).
retest: of the rows with a verdict and another one for the same question, the share in which they are the same.
parse rate: of all rows, the share with a verdict.

`a` and `b` name the row's two answers in every field, whichever was shown first. Where most labels are the same, a
judge that always says so has a high accuracy and a kappa of 0, so the two are shown together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from zephyr_ray.evaluation.intervals import RESAMPLES, mean_interval, percentile_interval

Verdict = Literal["a", "b", "tie"]
VERDICTS: tuple[Verdict, ...] = ("a", "b", "tie")
REPLIES = ("verdict", "swapped_verdict", "retest_verdict")


@dataclass(frozen=True)
class Judged:
    """A pair of answers with a label and a judge's verdicts."""

    id: Hashable
    label: Verdict | None
    replies: Mapping[str, Verdict | None]
    """By the names of `REPLIES`; None: the reply had no verdict. What was not asked is not there."""


class Share(NamedTuple):
    """A number over the rows that have what it takes."""

    value: float | None
    """None without such rows, or where it is not defined."""
    n: int
    of: int
    """Rows in which it was asked for, with and without a verdict."""
    interval: tuple[float, float] | None
    """95 %, by a bootstrap over rows."""


@dataclass(frozen=True)
class Agreement:
    """The numbers that the module's docstring defines."""

    accuracy: Share
    kappa: Share
    swap_consistency: Share
    retest: Share
    parse_rate: Share
    confusion: dict[Verdict, dict[Verdict, int]]
    """How often a label (outer) got a verdict (inner)."""
    opposite: int
    """Swapped verdicts for the other answer."""
    first_shown: int
    """Of these, judgments in which the answer shown first won both times; `a` is shown first, then `b`."""
    tie_in_one: int
    """Swapped pairs with a tie in one order only."""


def agreement(judged: Sequence[Judged]) -> Agreement:
    """All numbers of the rows."""
    labelled = [(row.label, row.replies.get("verdict"), row.id) for row in judged if row.label]
    both = [(label, verdict, identity) for label, verdict, identity in labelled if verdict]
    pairs = Counter((label, verdict) for label, verdict, _ in both)
    swapped = Counter(_both(judged, "swapped_verdict"))
    opposite = swapped["a", "b"] + swapped["b", "a"]
    changed = sum(count for (first, second), count in swapped.items() if first != second)
    hits = [float(label == verdict) for label, verdict, _ in both]
    parsed = [float(row.replies.get("verdict") is not None) for row in judged]
    return Agreement(
        accuracy=_share(hits, [identity for *_, identity in both], len(labelled)),
        kappa=Share(cohens_kappa(pairs), len(both), len(labelled), kappa_interval(pairs)),
        swap_consistency=_consistency(judged, "swapped_verdict"),
        retest=_consistency(judged, "retest_verdict"),
        parse_rate=_share(parsed, [row.id for row in judged], len(judged)),
        confusion={label: {verdict: pairs[label, verdict] for verdict in VERDICTS} for label in VERDICTS},
        opposite=opposite,
        first_shown=swapped["a", "b"],
        tie_in_one=changed - opposite,
    )


def cohens_kappa(pairs: Mapping[tuple[Any, Any], int]) -> float | None:
    """Cohen's kappa of two raters: (observed - expected) / (1 - expected).

    Args:
        pairs: How often the first and the second rater give these two values.

    Returns:
        None without pairs, and where both raters only ever give one and the same value: any agreement is by chance.
    """
    values = sorted({value for pair in pairs for value in pair})
    matrix = np.array([[pairs.get((first, second), 0) for second in values] for first in values], dtype=np.float64)
    if not matrix.sum():
        return None
    kappa = float(kappas_of(matrix[None])[0])
    return None if np.isnan(kappa) else kappa


def kappa_interval(pairs: Mapping[tuple[Any, Any], int], *, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap over rows; None with fewer than two rows.

    Rows drawn with replacement give counts of pairs that follow the multinomial distribution. A resample without a
    kappa is left out.
    """
    n = sum(pairs.values())
    if n < 2:
        return None
    values = sorted({value for pair in pairs for value in pair})
    counts = np.array([pairs.get((first, second), 0) for first in values for second in values])
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES)
    return percentile_interval(kappas_of(drawn.reshape(RESAMPLES, len(values), len(values)).astype(np.float64)))


def kappas_of(matrices: np.ndarray) -> np.ndarray:
    """Kappa of each matrix of counts, [matrices, values, values] -> [matrices]; NaN where it is not defined."""
    n = matrices.sum(axis=(1, 2))
    observed = np.trace(matrices, axis1=1, axis2=2) * n
    expected = (matrices.sum(axis=1) * matrices.sum(axis=2)).sum(axis=1)
    room = n * n - expected
    return np.divide(observed - expected, room, out=np.full(len(matrices), np.nan), where=room > 0)


def _both(judged: Sequence[Judged], reply: str) -> list[tuple[Verdict, Verdict]]:
    """The verdict and another reply of the rows that have both."""
    pairs = [(row.replies.get("verdict"), row.replies.get(reply)) for row in judged]
    return cast(list[tuple[Verdict, Verdict]], [pair for pair in pairs if None not in pair])


def _consistency(judged: Sequence[Judged], reply: str) -> Share:
    asked = [row for row in judged if reply in row.replies]
    same = [float(first == second) for first, second in _both(asked, reply)]
    kept = [row.id for row in asked if row.replies.get("verdict") and row.replies.get(reply)]
    return _share(same, kept, len(asked))


def _share(hits: Sequence[float], ids: Sequence[Hashable], of: int) -> Share:
    return Share(sum(hits) / len(hits) if hits else None, len(hits), of, mean_interval(hits, ids))


def as_json(result: Agreement) -> dict[str, Any]:
    """The numbers as `--json` writes them; `n` is the number of rows with a label and a verdict."""
    named = _named(result)
    return {
        **{name: share.value for name, share in named.items()},
        "n": result.accuracy.n,
        "intervals": {name: share.interval for name, share in named.items()},
        "counts": {name: {"n": share.n, "of": share.of} for name, share in named.items()},
        "confusion": result.confusion,
        "swapped": {
            "opposite": result.opposite,
            "first_shown_wins": result.first_shown,
            "second_shown_wins": result.opposite - result.first_shown,
            "tie_in_one": result.tie_in_one,
        },
    }


def table_lines(result: Agreement) -> list[str]:
    """The numbers for a person."""
    lines = [f"{'number':<17} {'value':>7}   {'95 % interval':<16}  n"]
    for name, share in _named(result).items():
        value = "-" if share.value is None else f"{share.value:.3f}"
        interval = f"{share.interval[0]:.3f} to {share.interval[1]:.3f}" if share.interval else "-"
        lines.append(f"{name.replace('_', ' '):<17} {value:>7}   {interval:<16}  {share.n} of {share.of}")
    if result.swap_consistency.n:
        lines += [
            "",
            f"in the other order {result.opposite} verdicts are opposite ({result.first_shown} for the answer shown "
            f"first), {result.tie_in_one} a tie in one order only",
        ]
    if result.accuracy.n and result.kappa.value is None:
        lines.append(
            "no kappa: label and verdict are the same single value in every row, so chance would agree as well"
        )
    return lines


def _named(result: Agreement) -> dict[str, Share]:
    return {
        "accuracy": result.accuracy,
        "kappa": result.kappa,
        "swap_consistency": result.swap_consistency,
        "retest": result.retest,
        "parse_rate": result.parse_rate,
    }
