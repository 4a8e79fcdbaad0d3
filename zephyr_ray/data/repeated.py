"""Reads an artifact's rows -> the same without repeats: of rows with one id, the one with the smallest source stays.

Ids are hashes of content, so a repeat says nothing new; it would count twice in training, and everything that is keyed
by id (reference log-probs, resuming) needs ids to be unique. Only ids are held in memory, and only files with a repeat
in them are written again.
"""

from __future__ import annotations

import dataclasses
import posixpath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zephyr_ray.artifacts import Artifact
from zephyr_ray.data.layouts import Reason
from zephyr_ray.data.sink import Report
from zephyr_ray.schemas import DROPPED

_FILE = "dropped/repeated.parquet"


def drop_repeated(artifact: Artifact, report: Report, id_column: str) -> Report:
    """Moves repeats from data/ to dropped/ and returns the report that is true then (its statistics stay as they were).

    Which of the repeats stays does not depend on how the rows lie in files.
    """
    filesystem = artifact.run.filesystem
    files = [name for name in report.files if name.startswith("data/")]
    paths = {name: posixpath.join(artifact.path, name) for name in files}
    repeated = _repeated_ids([pq.read_table(p, filesystem=filesystem, columns=[id_column]) for p in paths.values()])
    if not len(repeated):
        return report
    stays = _smallest_source(paths, artifact, id_column, repeated)
    dropped, emptied = [], []
    for name, path in paths.items():
        table = pq.read_table(path, filesystem=filesystem)
        keep = [
            row_id not in stays or stays[row_id] == (source, name, number)
            for number, (row_id, source) in enumerate(
                zip(table[id_column].to_pylist(), table["source"].to_pylist(), strict=True)
            )
        ]
        if all(keep):
            continue
        mask = pa.array(keep)
        left = table.filter(mask)
        gone = table.filter(pc.invert(mask))
        dropped += [
            {"source": source, "reason": str(Reason.REPEATED), "detail": row_id}
            for source, row_id in zip(gone["source"].to_pylist(), gone[id_column].to_pylist(), strict=True)
        ]
        if left.num_rows:
            pq.write_table(left, path, filesystem=filesystem, compression="zstd")
        else:
            emptied.append(name)
    pq.write_table(
        pa.Table.from_pylist(dropped, schema=DROPPED), posixpath.join(artifact.path, _FILE), filesystem=filesystem
    )
    return dataclasses.replace(
        report,
        rows_out=report.rows_out - len(dropped),
        dropped={**report.dropped, str(Reason.REPEATED): len(dropped)},
        files=sorted([name for name in report.files if name not in emptied] + [_FILE]),
    )


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
