"""One comparison of an answer of A with an answer of B to the same prompt, however a judge made it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.judged_files import other

Both = tuple[float, float]
"""A number of A's answer and of B's."""


@dataclass(frozen=True)
class Comparison:
    """What a judge says of two answers."""

    prompt: Hashable
    """Comparisons of one prompt are not independent, so that they are resampled together."""
    outcome: float | None
    """A's share: 1 if A wins, 0 if B does, 0.5 for a tie, between them the probability that A wins. None: no result."""
    problem: str | None = None
    """Why there is no result."""
    scores: Both | None = None
    """The ratings, where the judge gave some."""
    orders: tuple[Verdict, Verdict] | None = None
    """The verdicts with A shown first and with B shown first, where there are both; they name the answer."""
    tokens: Both | None = None
    """Lengths of the answers in tokens."""
    characters: Both | None = None
    """Lengths of the answers in characters."""
    category: str | None = None
    is_same_answer: bool = False
    """Whether both answers are the same text."""


def outcome_of_scores(a: float, b: float) -> float:
    """A wins if it is rated higher; equal ratings are a tie."""
    return 1.0 if a > b else 0.0 if a < b else 0.5


def outcome_of_verdicts(verdict: Verdict, swapped: Verdict | None = None) -> float:
    """An answer wins if both orders say so; orders that disagree are a tie (arXiv 2306.05685, section 3.4).

    Args:
        verdict: `a`, `b` or `tie`.
        swapped: The verdict with the answers in the other order, which names the same answers. None: not asked.
    """
    if swapped is not None and swapped != verdict:
        return 0.5
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[verdict]


def of_texts(a: object, b: object) -> tuple[Both | None, bool]:
    """The lengths of two answers in characters, None unless both are texts, and whether they are the same text."""
    if not (isinstance(a, str) and isinstance(b, str)):
        return None, False
    return (len(a), len(b)), a == b


def exchanged(comparison: Comparison) -> Comparison:
    """The same comparison with A and B in each other's place."""
    orders = comparison.orders and (other(comparison.orders[1]) or "tie", other(comparison.orders[0]) or "tie")
    return replace(
        comparison,
        outcome=None if comparison.outcome is None else 1.0 - comparison.outcome,
        scores=comparison.scores and comparison.scores[::-1],
        orders=orders,
        tokens=comparison.tokens and comparison.tokens[::-1],
        characters=comparison.characters and comparison.characters[::-1],
    )
