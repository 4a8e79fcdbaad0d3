"""Reads blocks of raw rows -> blocks of kept and dropped rows, told apart by `reason`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from zephyr_ray.schemas import Dropped, Reason

_DETAIL_LENGTH = 300

ToRow = Callable[[Mapping[str, Any]], dict[str, Any]]


def mixed_schema(kept: pa.Schema) -> pa.Schema:
    """A block's columns: those of a kept row, and `source`, `reason` and `detail` of a dropped one."""
    fields = [pa.field(field.name, field.type) for field in kept if field.name != "source"]
    return pa.schema([*fields, ("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


def convert(raw: pa.Table, *, to_row: ToRow, kept: pa.Schema) -> pa.Table:
    """Decodes each raw line (`sources.RAW_ROW`) and makes a row of it; what cannot be one goes on as a dropped row."""
    rows = []
    for source, line in zip(raw["source"].to_pylist(), raw["line"].to_pylist(), strict=True):
        try:
            row = to_row(decode(line))
            rows.append({"source": source, **row})
        except Dropped as dropped:
            rows.append(dropped_row(source, dropped))
    return pa.Table.from_pylist(rows, schema=mixed_schema(kept))


def dropped_row(source: str, dropped: Dropped) -> dict[str, Any]:
    """The columns of a dropped row. The rest of the block's columns stay null."""
    detail = dropped.detail.encode("utf-8", "backslashreplace").decode()
    return {"source": source, "reason": str(dropped.reason), "detail": detail[:_DETAIL_LENGTH]}


def decode(line: bytes) -> Mapping[str, Any]:
    """A raw line as a row.

    Raises:
        Dropped: It is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        start = line[:_DETAIL_LENGTH].decode("utf-8", "backslashreplace")
        raise Dropped(Reason.UNDECODABLE_LINE, f"{error}: {start}") from None
    if not isinstance(value, Mapping):
        raise Dropped(Reason.UNKNOWN_LAYOUT, f"{type(value).__name__}: {json.dumps(value)[:_DETAIL_LENGTH]}")
    return value
