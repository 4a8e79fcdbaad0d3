"""What was measured of a file's rows, kept in the file itself, so that going on later reads no row of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.data.io.histogram import Histogram

_KEY = b"zephyr_ray.histograms"


def with_histograms(table: pa.Table, histograms: Mapping[str, Histogram]) -> pa.Table:
    """A table that is written with its histograms in the Parquet file's metadata."""
    states = {name: histogram.state() for name, histogram in histograms.items()}
    return table.replace_schema_metadata({_KEY: json.dumps(states, separators=(",", ":"))})


def read_histograms(file: pq.ParquetFile) -> dict[str, Histogram] | None:
    """The histograms that a file was written with; None if with none."""
    text = (file.metadata.metadata or {}).get(_KEY)
    if text is None:
        return None
    return {name: Histogram.of_state(state) for name, state in json.loads(text).items()}
