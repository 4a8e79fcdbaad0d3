"""Topics of texts: clusters of their embeddings, each named by the words that are most characteristic of it.

Clusters are k-means'. A word is characteristic by its weighted log-odds with an informative Dirichlet prior (Monroe,
Colaresi and Quinn 2008, "Fightin' Words", equations 16, 20 and 22): with y_w the texts of a cluster that have the word,
n its words, both counted so in all others (y'_w, n'), and the prior a_w = a y_all,w / n_all, sum a,

    d_w = log((y_w + a_w) / (n + a - y_w - a_w)) - log((y'_w + a_w) / (n' + a - y'_w - a_w))
    z_w = d_w / sqrt(1 / (y_w + a_w) + 1 / (y'_w + a_w))

Words that are as frequent everywhere have a z near 0, so that no list of stop words is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

MOST_CLUSTERS = 20
NAMED_BY = 5
"""Words that name a cluster."""

_PRIOR = 1_000.0  # a: words that the prior weighs
_STARTS = 4  # of k-means, of which the best counts


def clusters(vectors: np.ndarray, seed: int) -> np.ndarray:
    """The cluster of each text ([n], int64), the largest of which is 0. There are about sqrt(n / 2) of them, and
    `MOST_CLUSTERS` at most.

    Args:
        vectors: Embeddings, [n, d].
        seed: Of the first centres.
    """
    from sklearn.cluster import KMeans

    different = len(np.unique(vectors, axis=0))
    count = max(1, min(MOST_CLUSTERS, different, round(math.sqrt(len(vectors) / 2))))
    found = KMeans(count, n_init=_STARTS, random_state=seed).fit_predict(vectors)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    return place[found]


def characteristic_words(texts: Sequence[frozenset[str]], labels: np.ndarray) -> list[list[str]]:
    """For each cluster the words that are most characteristic of it, the most characteristic first.

    Args:
        texts: The different words of each text.
        labels: The cluster of each text, [n].
    """
    total: Counter[str] = Counter()
    by_cluster = [Counter[str]() for _ in range(int(labels.max(initial=-1)) + 1)]
    for words, label in zip(texts, labels.tolist(), strict=True):
        total.update(words)
        by_cluster[label].update(words)
    return [_most_characteristic(own, total) for own in by_cluster]


def plane(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components of vectors ([n, d] -> [n, 2]); the largest coordinate of each is positive."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    found = np.zeros((len(vectors), 2))
    components = centred @ axes[:, :-3:-1]
    found[:, : components.shape[1]] = components
    return found * np.where(found.max(axis=0) < -found.min(axis=0), -1, 1)


def log_odds(count: int, size: int, rest: int, others: int) -> float:
    """z_w: by how many standard deviations a word is more frequent in a cluster than in the others.

    Args:
        count: y_w, its texts in the cluster.
        size: n, the words of the cluster's texts.
        rest: y'_w, its texts in the others.
        others: n', the words of the others' texts.
    """
    prior = _PRIOR * (count + rest) / (size + others)
    mine, theirs = count + prior, rest + prior
    difference = math.log(mine / (size + _PRIOR - mine)) - math.log(theirs / (others + _PRIOR - theirs))
    return difference / math.sqrt(1 / mine + 1 / theirs)


def _most_characteristic(own: Counter[str], total: Counter[str]) -> list[str]:
    size, others = own.total(), total.total() - own.total()
    if not others or len(total) == 1:  # there is nothing to tell it from
        return [word for word, _ in sorted(own.items(), key=lambda item: (-item[1], item[0]))[:NAMED_BY]]
    scores = {word: log_odds(count, size, total[word] - count, others) for word, count in own.items()}
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, score in best[:NAMED_BY] if score > 0]
