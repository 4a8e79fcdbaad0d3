"""The case lexicon of a corpus: one pass over raw rows, counted in tasks."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from zephyr_ray.data.cleaning.case_lexicon import CaseCounts, CaseLexicon, count, make_lexicon
from zephyr_ray.data.formats import layouts
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.data.io.rows import decode, raw_rows
from zephyr_ray.schemas import Dropped

if TYPE_CHECKING:
    import ray.data


def learn(raw: ray.data.Dataset, num_cpus: float = 1) -> CaseLexicon:
    """How the dialogues among raw rows (`sources.RAW_ROW`, read with as many `num_cpus`) case their words."""
    total = CaseCounts()
    counts = raw.map_batches(_count, batch_format="pyarrow", batch_size=None, num_cpus=num_cpus)
    for row in counts.iter_rows():
        total.add(pickle.loads(row["counts"]))
    return make_lexicon(total)


def _count(raw: pa.Table) -> pa.Table:
    return pa.table({"counts": pa.array([pickle.dumps(count(_dialogues(raw)))], pa.large_binary())})


def _dialogues(raw: pa.Table) -> Iterator[list[Message]]:
    for _, value in raw_rows(raw):
        try:
            yield layouts.dialogue_messages(decode(value))
        except Dropped:  # the second pass drops it, with the reason
            continue
