"""The win rate that A would have if its answers were as long as B's (arXiv 2404.04475).

Judges prefer longer answers. A logistic regression explains the outcome y of a comparison by the difference d of the
two lengths,

    P(A wins) = sigmoid(theta + phi tanh(d / std(d))),

and the length-controlled win rate is sigmoid(theta), its value at d = 0. AlpacaEval's regression has a term more, the
difficulty of each of its 805 instructions, estimated from many models; among other prompts there is none. It is fitted
by scikit-learn: log-loss, a tie as half a win and half a loss, with an L2 penalty of phi^2 / (2 C) on the sum over all
comparisons and none on theta. C = 100 is a normal prior of phi with the standard deviation 10, which hardly moves it.

The interval is theta's, plus and minus 1.96 standard errors, as win rates. The standard error is the sandwich estimate
with prompts as clusters (Liang and Zeger, Biometrika 73, 1986, pages 13 to 22), which also holds for probabilities as
outcomes and for several comparisons of a prompt: a bootstrap would fit thousands of regressions for the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from zephyr_ray.evaluation.comparison import Comparison

C = 100.0
_QUANTILE = 1.959963984540054  # of the normal distribution, for a level of 95 %


class LengthControlled(NamedTuple):
    """The win rate at equal lengths."""

    win_rate: float | None
    interval: tuple[float, float] | None
    """95 %, by the standard error of theta."""
    length_effect: float | None
    """phi: above 0 where the longer answer wins more often."""
    n: int
    """Comparisons with an outcome and both lengths."""
    unit: str | None
    """`tokens` or `characters`."""
    reason: str | None
    """Why something is null."""


def length_controlled(comparisons: Sequence[Comparison]) -> LengthControlled:
    """The length-controlled win rate of comparisons with an outcome, by the unit that more of them have lengths in."""
    in_tokens = [(each, each.tokens) for each in comparisons if each.tokens]
    in_characters = [(each, each.characters) for each in comparisons if each.characters]
    unit = "tokens" if len(in_tokens) >= len(in_characters) else "characters"
    with_lengths = in_tokens if unit == "tokens" else in_characters
    outcomes = np.array([each.outcome for each, _ in with_lengths], dtype=np.float64)
    differences = np.array([first - second for _, (first, second) in with_lengths], dtype=np.float64)
    prompts = [each.prompt for each, _ in with_lengths]
    reason = _why_not(outcomes, differences, prompts)
    if reason:
        return LengthControlled(None, None, None, len(prompts), unit if prompts else None, reason)
    features = np.tanh(differences / differences.std(ddof=1))
    theta, phi = _fit(outcomes, features)
    error = _standard_error(outcomes, features, prompts, theta, phi)
    low, high = (float(_sigmoid(theta + sign * _QUANTILE * error)) for sign in (-1, 1))
    return LengthControlled(float(_sigmoid(theta)), (low, high), phi, len(prompts), unit, None)


def _why_not(outcomes: np.ndarray, differences: np.ndarray, prompts: Sequence[Hashable]) -> str | None:
    """Why no win rate at equal lengths can be told; None if it can."""
    if not len(outcomes):
        return "no comparison has the lengths of both answers"
    if len(set(prompts)) < 2:
        return "there is one prompt"
    if (outcomes == outcomes[0]).all():
        return "all outcomes are the same"
    if differences.std() == 0:
        return "the difference in length is the same everywhere"
    if _are_separable(outcomes, differences):
        return "the difference in length tells all wins from all losses, so that any effect of length would fit"
    return None


def _are_separable(outcomes: np.ndarray, differences: np.ndarray) -> bool:
    """Whether a length divides wins from losses, so that the likelihood has no maximum. A tie is a bit of both."""
    wins, losses = differences[outcomes > 0], differences[outcomes < 1]
    if not (len(wins) and len(losses)):
        return True
    return bool(wins.min() >= losses.max() or wins.max() <= losses.min())


def _fit(outcomes: np.ndarray, features: np.ndarray) -> tuple[float, float]:
    """theta and phi. A comparison is a win with the weight y and a loss with the weight 1 - y."""
    from sklearn.linear_model import LogisticRegression

    labels, weights = np.repeat([1, 0], len(outcomes)), np.concatenate([outcomes, 1 - outcomes])
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8)
    model.fit(np.tile(features, 2)[:, None], labels, sample_weight=weights)
    return float(model.intercept_[0]), float(model.coef_[0, 0])


def _standard_error(
    outcomes: np.ndarray, features: np.ndarray, prompts: Sequence[Hashable], theta: float, phi: float
) -> float:
    """That of theta: H^-1 (sum over prompts of s s^T) H^-1, with a prompt's score s and the penalized Hessian H."""
    design = np.column_stack([np.ones(len(features)), features])
    expected = _sigmoid(design @ [theta, phi])
    hessian = (design.T * (expected * (1 - expected))) @ design + np.diag([0, 1 / C])
    number = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    scores = np.zeros((len(number), 2))
    np.add.at(scores, [number[prompt] for prompt in prompts], (outcomes - expected)[:, None] * design)
    bread = np.linalg.inv(hessian)
    variance = bread @ scores.T @ scores @ bread * len(number) / (len(number) - 1)
    return float(np.sqrt(variance[0, 0]))


def _sigmoid(value: float | np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(value)))
