"""Drop near duplicates among an artifact's dialogues: of those with almost the same words the first by source stays.

Two dialogues are near duplicates if the Jaccard similarity of their shingles (runs of words of the whole dialogue, case
and punctuation folded) is at least the threshold. Candidates come of MinHash signatures, and every one is verified: no
row is dropped on an estimate. Near duplicates of near duplicates form a cluster, of which one row stays.

Which rows go does not depend on how they lie in files: rows go by numbers in the order of their ids.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from zephyr_ray.config.cleaning import NearDuplicates
from zephyr_ray.data.cleaning import near_pairs, row_pairs, union_find
from zephyr_ray.data.cleaning.near_pairs import Compared, Pairs
from zephyr_ray.data.cleaning.numbered_rows import NumberedRows, numbered
from zephyr_ray.data.io import file_tasks
from zephyr_ray.data.io.rewrite import leave_out
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import DROPPED_DIALOGUES, Reason

if TYPE_CHECKING:
    import ray

_LARGEST = 10  # clusters that are described
_EXAMPLE = 500  # characters of an example
_ID = "dialogue_id"
_MEMBERS = pa.schema([("cluster", pa.int64()), ("source", pa.string()), ("number", pa.int64())])
"""A row that has near duplicates, and what it has in common with all of its cluster."""


@dataclass(frozen=True)
class Example:
    """A row of a cluster: its source, and the start of its text."""

    source: str
    text: str


@dataclass(frozen=True)
class Cluster:
    """Rows that are near duplicates of one another, directly or through others of them."""

    size: int
    kept: Example
    farthest: Example
    """The dropped row that is least similar to the kept one."""
    jaccard: float
    """Of these two."""


@dataclass(frozen=True)
class Clusters:
    """What was found, for a report."""

    sizes: dict[int, int] = field(default_factory=dict)
    """How many clusters there are of each size from 2, in order."""
    largest: tuple[Cluster, ...] = ()
    """At most ten, the largest first."""
    candidates: int = 0
    """Pairs whose shingles were compared."""
    pairs: int = 0
    """Those of them that are near duplicates."""


def drop_near_duplicates(artifact: Artifact, report: Report, section: NearDuplicates) -> tuple[Report, Clusters]:
    """Moves near duplicates from data/ to dropped/, each with the source of the row that stays and their similarity.

    Args:
        artifact: Dialogues (`schemas.DIALOGUES`) that were just written, each id once.
        report: Of that.
        section: When dialogues are near duplicates.

    Returns:
        The report that is true then (its statistics do not change), and what was found.
    """
    rows, files = numbered(artifact, report, _ID)
    pairs, mean_shingles = near_pairs.candidates(rows, files, section.threshold, section.words)
    compare = functools.partial(near_pairs.compare, rows, files, words=section.words, mean_shingles=mean_shingles)
    near = compare(pairs=pairs, threshold=section.threshold)
    if not near.count:
        return report, Clusters(candidates=near.looked_at)
    dropped, unknown = _choose(rows, files, near)
    others = compare(pairs=unknown, threshold=0.0)  # of the rows that are in a cluster through others
    [(details, sizes, largest)] = file_tasks.start(
        _describe, [(section.threshold, dropped, *near.parts, *others.parts)], results=3
    )
    counts, described = file_tasks.get([sizes, largest])
    found = Clusters(counts, _with_texts(rows, files, described), near.looked_at, near.count)
    goes = _Dropped(rows, details)
    return leave_out(artifact, report, Reason.NEAR_DUPLICATE, goes.has, [_ID], goes.details, DROPPED_DIALOGUES), found


def _choose(rows: NumberedRows, files: Sequence[Sequence[str]], near: Compared) -> tuple[ray.ObjectRef, Pairs]:
    """The rows that go (`_first_stays`), and the pairs of them with the row that stays that were not compared."""
    [clusters] = file_tasks.start(_clusters, [near.parts])
    members = file_tasks.start(_members, [(rows, paths, clusters) for paths in files])
    [(dropped, unknown, count)] = file_tasks.start(_first_stays, [(len(near.parts), *near.parts, *members)], results=3)
    return dropped, Pairs((unknown,), *file_tasks.get([count]))


def _clusters(*near: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The rows that have a near duplicate: their numbers, sorted, and the number of the cluster of each ([2, n])."""
    pairs = np.concatenate([each for each, _ in near])
    return np.stack(union_find.components(*row_pairs.numbers_of(pairs)))


def _members(rows: NumberedRows, paths: Sequence[str], clusters: np.ndarray) -> pa.Table:
    """Those of the rows in some files that are in a cluster: cluster, source, number."""
    found = [_MEMBERS.empty_table()]
    for numbers, batch in rows.read(paths, ["source"]):
        places, is_there = _look_up(clusters[0], numbers)
        sources = batch.column("source").filter(pa.array(is_there))
        members = {"cluster": clusters[1, places[is_there]], "source": sources, "number": numbers[is_there]}
        found.append(pa.table(members).cast(_MEMBERS))
    return pa.concat_tables(found)


def _first_stays(compared: int, *parts: tuple | pa.Table) -> tuple[pa.Table, np.ndarray, int]:
    """Of each cluster the first row by source stays.

    Args:
        compared: How many of the parts are pairs with their similarity; the others are `_members`.

    Returns:
        The rows that go (number, source; kept, kept_source: the row that stays), sorted by number; the pairs of both
        that are not among the compared ones, and how many they are.
    """
    ordered = pa.concat_tables(parts[compared:]).sort_by([(name, "ascending") for name in _MEMBERS.names])
    cluster, number = ordered["cluster"].to_numpy(), ordered["number"].to_numpy()
    stays = np.append(True, cluster[1:] != cluster[:-1])
    first = np.flatnonzero(stays)[np.cumsum(stays) - 1]
    goes = np.flatnonzero(~stays)
    goes = goes[np.argsort(number[goes])]
    kept = first[goes]
    table = pa.table(
        {
            "number": number[goes],
            "source": ordered["source"].take(pa.array(goes)),
            "kept": number[kept],
            "kept_source": ordered["source"].take(pa.array(kept)),
        }
    )
    known = np.concatenate([pairs for pairs, _ in parts[:compared]])
    pairs = np.sort(row_pairs.paired(number[goes], number[kept]))
    unknown = pairs[~np.isin(pairs, known, kind="sort")]
    return table, unknown, len(unknown)


def _describe(
    threshold: float, dropped: pa.Table, *compared: tuple[np.ndarray, np.ndarray]
) -> tuple[pa.Table, dict[int, int], list[dict]]:
    """What each dropped row tells (number, detail), sorted by number; how many clusters there are of each size; and the
    largest ones: size, jaccard, and the rows kept and dropped (number, source).
    """
    pairs, similarity = (np.concatenate(each) for each in zip(*compared, strict=True))
    order = np.argsort(pairs)
    number, kept = dropped["number"].to_numpy(), dropped["kept"].to_numpy()
    places = order[np.searchsorted(pairs, row_pairs.paired(number, kept), sorter=order)]
    jaccard = similarity[places]
    details = [
        f"{source} (Jaccard {each:.3f}{'' if each >= threshold else ', similar through other rows'})"
        for source, each in zip(dropped["kept_source"].to_pylist(), jaccard.tolist(), strict=True)
    ]
    clusters, sizes = np.unique(kept, return_counts=True)
    counts = np.unique(sizes + 1, return_counts=True)
    largest = []
    for each in np.lexsort((clusters, -sizes))[:_LARGEST]:
        mine = np.flatnonzero(kept == clusters[each])
        farthest = mine[np.argmin(jaccard[mine])]
        row = dropped.slice(int(farthest), 1).to_pylist()[0]
        largest.append({"size": int(sizes[each]) + 1, "jaccard": float(jaccard[farthest]), **row})
    return (
        pa.table({"number": number, "detail": details}),
        dict(zip(*(each.tolist() for each in counts), strict=True)),
        largest,
    )


def _with_texts(rows: NumberedRows, files: Sequence[Sequence[str]], largest: list[dict]) -> tuple[Cluster, ...]:
    numbers = np.unique([row[name] for row in largest for name in ("number", "kept")])
    texts: dict[int, str] = {}
    for found in file_tasks.results(_texts, [(rows, paths, numbers) for paths in files]):
        texts |= found
    return tuple(
        Cluster(
            row["size"],
            Example(row["kept_source"], texts[row["kept"]]),
            Example(row["source"], texts[row["number"]]),
            row["jaccard"],
        )
        for row in largest
    )


def _texts(rows: NumberedRows, paths: Sequence[str], numbers: np.ndarray) -> dict[int, str]:
    """The start of the text of those of some rows that are in some files."""
    found = {}
    for here, batch in rows.read(paths, ["messages"]):
        for place in np.flatnonzero(np.isin(here, numbers)).tolist():
            messages = batch.column("messages")[place].as_py()
            text = "\n".join(f"{message['role']}: {message['content']}" for message in messages)
            found[int(here[place])] = text[:_EXAMPLE]
    return found


@dataclass(frozen=True)
class _Dropped:
    """The rows that go, for tasks."""

    rows: NumberedRows
    table: ray.ObjectRef
    """Number and detail, sorted by number."""

    def has(self, _: int, rows: pa.Table) -> np.ndarray:
        """Whether each row goes ([n], bool)."""
        return self._find(rows)[1]

    def details(self, gone: pa.Table) -> pa.ChunkedArray:
        """What each of some of these rows tells."""
        return self._get()["detail"].take(pa.array(self._find(gone)[0]))

    def _find(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        return _look_up(self._get()["number"].to_numpy(), self.rows.number(rows[_ID]))

    def _get(self) -> pa.Table:
        import ray

        return ray.get(self.table)


def _look_up(ordered: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in sorted numbers each of others is ([n]), and whether it is there ([n], bool)."""
    places = np.minimum(np.searchsorted(ordered, numbers), len(ordered) - 1)
    return places, ordered[places] == numbers
