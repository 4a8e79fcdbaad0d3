"""Takes rows out of an artifact that was written: they move from data/ to dropped/, with the reason."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import DROPPED, Reason


def leave_out(
    artifact: Artifact,
    report: Report,
    reason: Reason,
    is_left_out: Callable[[str, pa.Table], Sequence[bool]],
    id_column: str,
) -> Report:
    """Moves kept rows to dropped/ and returns the report that is true then (its statistics stay as they were).

    Only files with such a row in them are written again.

    Args:
        artifact: One that `writer.write` has just written and that is not finished.
        report: Of that.
        reason: Why the rows go.
        is_left_out: File and rows -> for each row whether it goes.
        id_column: What a dropped row tells of itself.
    """
    filesystem = artifact.run.filesystem
    dropped: list[dict[str, str]] = []
    files = dict(report.files)
    for name in kept_files(report.files):
        path = posixpath.join(artifact.path, name)
        table = pq.read_table(path, filesystem=filesystem)
        mask = pa.array(is_left_out(name, table), pa.bool_())
        if not pc.any(mask).as_py():
            continue
        left, gone = table.filter(pc.invert(mask)), table.filter(mask)
        dropped += [
            {"source": source, "reason": str(reason), "detail": row_id}
            for source, row_id in zip(gone["source"].to_pylist(), gone[id_column].to_pylist(), strict=True)
        ]
        if left.num_rows:
            pq.write_table(left, path, filesystem=filesystem, compression="zstd")
            files[name] = left.num_rows
        else:
            filesystem.delete_file(path)
            del files[name]
    if not dropped:
        return report
    file = artifact.new_name(f"dropped/{reason}.parquet")
    pq.write_table(
        pa.Table.from_pylist(dropped, schema=DROPPED), posixpath.join(artifact.path, file), filesystem=filesystem
    )
    return dataclasses.replace(
        report,
        rows_out=report.rows_out - len(dropped),
        dropped={**report.dropped, str(reason): len(dropped)},
        files=files | {file: len(dropped)},
    )


def kept_files(files: Iterable[str]) -> list[str]:
    """Of an artifact's files those of kept rows."""
    return [name for name in files if name.startswith("data/")]
