"""Deduplication: of an artifact's rows with one id, the one with the smallest source stays.

Ids are hashes of content, so a repeat says nothing new; it would count twice in training, and everything that is keyed
by id (reference log-probs, resuming) needs ids to be unique. Only ids are held in memory, and only files with a repeat
in them are written again.
"""

from __future__ import annotations

import posixpath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zephyr_ray.data.formats.layouts import Reason
from zephyr_ray.data.io.rewrite import kept_files, leave_out
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact


def drop_repeated(artifact: Artifact, report: Report, id_column: str) -> Report:
    """Moves repeats from data/ to dropped/ and returns the report that is true then (its statistics stay as they were).

    Which of the repeats stays does not depend on how the rows lie in files.
    """
    filesystem = artifact.run.filesystem
    paths = {name: posixpath.join(artifact.path, name) for name in kept_files(report.files)}
    repeated = _repeated_ids([pq.read_table(p, filesystem=filesystem, columns=[id_column]) for p in paths.values()])
    if not len(repeated):
        return report
    stays = _smallest_source(paths, artifact, id_column, repeated)

    def is_repeat(name: str, table: pa.Table) -> list[bool]:
        rows = zip(table[id_column].to_pylist(), table["source"].to_pylist(), strict=True)
        return [
            row_id in stays and stays[row_id] != (source, name, number) for number, (row_id, source) in enumerate(rows)
        ]

    return leave_out(artifact, report, Reason.REPEATED, is_repeat, id_column)


def _repeated_ids(tables: list[pa.Table]) -> pa.Array:
    if not tables:
        return pa.array([], pa.string())
    counts = pc.value_counts(pa.concat_tables(tables).column(0))
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def _smallest_source(
    paths: dict[str, str], artifact: Artifact, id_column: str, repeated: pa.Array
) -> dict[str, tuple[str, str, int]]:
    """For each repeated id the (source, file, row number) that stays."""
    stays: dict[str, tuple[str, str, int]] = {}
    for name, path in paths.items():
        table = pq.read_table(path, filesystem=artifact.run.filesystem, columns=[id_column, "source"])
        numbers = pc.indices_nonzero(pc.is_in(table[id_column], value_set=repeated)).to_pylist()
        for number in numbers:
            row_id = table[id_column][number].as_py()
            place = (table["source"][number].as_py(), name, number)
            stays[row_id] = min(stays.get(row_id, place), place)
    return stays
