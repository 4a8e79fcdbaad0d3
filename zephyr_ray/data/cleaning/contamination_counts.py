"""How many rows of an artifact were dropped because of each benchmark file."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from zephyr_ray.data.io import file_tasks
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import Reason


def contaminated_by(artifact: Artifact, report: Report) -> dict[str, int]:
    """{"contaminated_by FILE": rows} of the rows that the report counts as contaminated, the most first; for
    `Report.noted`.
    """
    if Reason.CONTAMINATED not in report.dropped:
        return {}
    paths = [posixpath.join(artifact.path, name) for name in report.files if name.startswith("dropped/")]
    counts = Counter[str]()
    for counted in file_tasks.results(_count, [(group, artifact.run.filesystem) for group in file_tasks.groups(paths)]):
        counts.update(counted)
    return {
        f"contaminated_by {file}": count for file, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }


def _count(paths: Sequence[str], filesystem: pafs.FileSystem) -> Counter[str]:
    """The files that contaminated rows name first in their details (`decontaminate`)."""
    counts = Counter[str]()
    for path in paths:
        with open_parquet(path, filesystem) as file:
            for rows in file.iter_batches(columns=["reason", "detail"]):
                table = pa.Table.from_batches([rows])
                details = table.filter(pc.equal(table["reason"], str(Reason.CONTAMINATED)))["detail"].to_pylist()
                counts.update(detail.partition(":")[0] for detail in details)
    return counts
