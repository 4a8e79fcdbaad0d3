"""People's agreement with each other, and a judge's with one of them: the same numbers, one the other's bound.

For each pair of answers, every label of a person is held against every other person's, in both directions, and the
judge's verdict against every label. accuracy: the share that is equal. kappa: Cohen's of all these together. A judge
that agrees with a person as well as another person does is as good as people are; nobody can tell more from such
labels. Intervals are 95 %, by a bootstrap over pairs of answers, each with all of its labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from zephyr_ray.evaluation.agreement import VERDICTS, Share, Verdict, kappas_of
from zephyr_ray.evaluation.intervals import percentile_interval

_RESAMPLES = 2_000
_VALUES = len(VERDICTS)


class Paired(NamedTuple):
    """How far two raters say the same."""

    accuracy: Share
    kappa: Share


Labels = Sequence[Verdict]


def majority(labels: Labels) -> Verdict | None:
    """What more people say than anything else; None if nothing is."""
    ranked = Counter(labels).most_common(2)
    return None if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def among_people(labels: Sequence[Labels]) -> Paired:
    """Of the labels of each pair of answers; those of one person alone say nothing of it."""
    return _paired([[*permutations(each, 2)] for each in labels])


def with_one_person(labels: Sequence[Labels], verdicts: Sequence[Verdict | None]) -> Paired:
    """A judge's verdict on each pair of answers against each label of it; null verdicts are left out."""
    return _paired(
        [
            [(label, verdict) for label in given] if verdict else []
            for given, verdict in zip(labels, verdicts, strict=True)
        ]
    )


def _paired(pairs: Sequence[Sequence[tuple[Verdict, Verdict]]]) -> Paired:
    """Both numbers; `n` counts the pairs of answers that have what it takes."""
    matrices = np.array([_matrix(each) for each in pairs if each]).reshape(-1, _VALUES, _VALUES)
    n, total = len(matrices), matrices.sum(axis=0)
    if not n:
        return Paired(Share(None, 0, len(pairs), None), Share(None, 0, len(pairs), None))
    drawn = np.random.default_rng(0).multinomial(n, [1 / n] * n, size=_RESAMPLES).astype(np.float64)
    resampled = (drawn @ matrices.reshape(n, -1)).reshape(_RESAMPLES, _VALUES, _VALUES)
    kappa = float(kappas_of(total[None])[0])
    return Paired(
        Share(_accuracy(total), n, len(pairs), percentile_interval(_accuracies(resampled)) if n > 1 else None),
        Share(
            None if np.isnan(kappa) else kappa,
            n,
            len(pairs),
            percentile_interval(kappas_of(resampled)) if n > 1 else None,
        ),
    )


def _matrix(pairs: Sequence[tuple[Verdict, Verdict]]) -> np.ndarray:
    matrix = np.zeros((_VALUES, _VALUES))
    for first, second in pairs:
        matrix[VERDICTS.index(first), VERDICTS.index(second)] += 1
    return matrix


def _accuracy(matrix: np.ndarray) -> float:
    return float(_accuracies(matrix[None])[0])


def _accuracies(matrices: np.ndarray) -> np.ndarray:
    return np.trace(matrices, axis1=1, axis2=2) / matrices.sum(axis=(1, 2))
