"""Leaves out held-out pairs whose prompt is trained on.

Prompts are the same where their messages are, after every layout was read into messages; pairs are told apart in the
same way. Only the held-out prompts' ids are held in memory; the preferences are streamed past them.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.data.formats.messages import Reason
from zephyr_ray.data.io import sources
from zephyr_ray.data.io.rewrite import kept_files, leave_out
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact, content_id

_BATCH_ROWS = 512


def drop_in_training(artifact: Artifact, report: Report, trained_on: Artifact) -> Report:
    """Moves pairs whose prompt is one of `trained_on`'s (`schemas.PREFERENCES`) from data/ to dropped/.

    Raises:
        RuntimeError: Not every row of `trained_on` was looked at.
    """
    wanted = frozenset(_ids_of_files(artifact, report))
    rows = sources.read_artifact(trained_on).map_batches(
        functools.partial(_look_up, wanted=wanted), batch_format="pyarrow", batch_size=_BATCH_ROWS
    )
    looked = rows.take_all()
    sources.check_all_read(trained_on, sum(each["rows"] for each in looked))
    trained = {prompt_id for each in looked for prompt_id in each["found"]}

    def is_trained_on(name: str, table: pa.Table) -> list[bool]:
        return [prompt_id in trained for prompt_id in prompt_ids(table)]

    return leave_out(artifact, report, Reason.IN_TRAINING, is_trained_on, "pair_id")


def prompt_ids(table: pa.Table | pa.RecordBatch) -> list[str]:
    """The hash of each row's prompt messages."""
    return [content_id(messages) for messages in table.column("prompt").to_pylist()]


def _ids_of_files(artifact: Artifact, report: Report) -> Iterator[str]:
    for name in kept_files(report.files):
        with pq.ParquetFile(posixpath.join(artifact.path, name), filesystem=artifact.run.filesystem) as file:
            for rows in file.iter_batches(columns=["prompt"]):
                yield from prompt_ids(rows)


def _look_up(batch: pa.Table, *, wanted: Iterable[str]) -> pa.Table:
    """How many rows there are, and which of the wanted prompts are theirs."""
    found = sorted({*prompt_ids(batch)} & {*wanted})
    return pa.table({"rows": [batch.num_rows], "found": pa.array([found], pa.list_(pa.string()))})
