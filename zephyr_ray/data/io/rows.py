"""Raw rows, decoded; and blocks of kept and dropped rows, told apart by `reason`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.schemas import Dropped, Reason

_DETAIL_LENGTH = 300

ToRow = Callable[[Mapping[str, Any]], dict[str, Any]]


def mixed_schema(kept: pa.Schema) -> pa.Schema:
    """A block's columns: those of a kept row, and `source`, `reason` and `detail` of a dropped one."""
    fields = [pa.field(field.name, field.type) for field in kept if field.name != "source"]
    return pa.schema([*fields, ("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


def all_kept(columns: Sequence[Any], kept: pa.Schema) -> pa.Table:
    """A block (`mixed_schema`) of rows that are all kept.

    Args:
        columns: An array for each field of the schema, in its order.
        kept: The rows' schema.
    """
    schema = mixed_schema(kept)
    empty = (pa.nulls(len(columns[0]), field.type) for field in list(schema)[len(columns) :])
    return pa.table([*columns, *empty], schema=schema)


def convert(raw: pa.Table, *, to_row: ToRow, kept: pa.Schema) -> pa.Table:
    """Decodes each raw row (`sources.RAW_ROW`) and makes a row of it; what cannot be one goes on as a dropped row."""
    rows = []
    for source, value in raw_rows(raw):
        try:
            row = to_row(decode(value))
            rows.append({"source": source, **row})
        except Dropped as dropped:
            rows.append(dropped_row(source, dropped))
    return pa.Table.from_pylist(rows, schema=mixed_schema(kept))


def dropped_row(source: str, dropped: Dropped) -> dict[str, Any]:
    """The columns of a dropped row. The rest of the block's columns stay null."""
    detail = dropped.detail.encode("utf-8", "backslashreplace").decode()
    return {"source": source, "reason": str(dropped.reason), "detail": detail[:_DETAIL_LENGTH]}


def raw_rows(raw: pa.Table) -> Iterator[tuple[str, bytes | dict[str, Any]]]:
    """The source and what was read of each raw row (`sources.RAW_ROW`): a line of JSON, or a row of Parquet.

    A value of Parquet's that JSON has no type for (a time, bytes) is text, as in a row that a function makes.
    """
    if "row" not in raw.column_names:
        values = raw["line"].to_pylist()
    elif _is_json(raw.schema.field("row").type):
        values = raw["row"].to_pylist()
    else:
        values = json.loads(json.dumps(raw["row"].to_pylist(), default=str))
    return zip(raw["source"].to_pylist(), values, strict=True)


def _is_json(kind: pa.DataType) -> bool:
    """Whether JSON has the type, and those within it."""
    if pa.types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_dictionary(kind):
        return _is_json(kind.value_type)
    plain = ("null", "boolean", "integer", "float32", "float64", "string", "large_string")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in plain)


def decode(line: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """What was read as a row.

    Raises:
        Dropped: It is none.
    """
    if isinstance(line, Mapping):
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        start = line[:_DETAIL_LENGTH].decode("utf-8", "backslashreplace")
        raise Dropped(Reason.UNDECODABLE_LINE, f"{error}: {start}") from None
    if not isinstance(value, Mapping):
        raise Dropped(Reason.UNKNOWN_LAYOUT, f"{type(value).__name__}: {json.dumps(value)[:_DETAIL_LENGTH]}")
    return value
