"""Accuracy on multiple choice: the choice with the highest log-likelihood is the model's answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Accuracy(NamedTuple):
    """A share of questions."""

    value: float
    standard_error: float | None
    """Of the mean, with n - 1, as lm-evaluation-harness has it; None of a single question."""
    n: int


def accuracy(log_likelihoods: Sequence[Sequence[float]], right: Sequence[int]) -> Accuracy:
    """The share of questions whose right choice has the highest log-likelihood; of equal ones the first counts.

    Args:
        log_likelihoods: [questions][choices], in nats.
        right: [questions], the index of the right choice.

    Raises:
        ValueError: There is no question.
    """
    if not right:
        raise ValueError("no question")
    answers = [choices.index(max(choices)) for choices in map(list, log_likelihoods)]
    n = len(answers)
    value = sum(answer == truth for answer, truth in zip(answers, right, strict=True)) / n
    return Accuracy(value, math.sqrt(value * (1 - value) / (n - 1)) if n > 1 else None, n)
