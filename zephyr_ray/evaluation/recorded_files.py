"""Reads files of recorded judgments: JSON lines or a JSON array, plain or as .gz."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zephyr_ray.errors import UserError

Row = dict[str, Any]

ERROR = "$ERROR$"
"""What FastChat and Arena-Hard store in the place of a reply that they did not get."""


class Recorded(NamedTuple):
    """The rows of a file."""

    rows: list[Row]
    broken: int
    """Lines, or elements of an array, that are no JSON object: a program that was killed while it wrote cuts a line."""

    @property
    def lines(self) -> int:
        return len(self.rows) + self.broken


def read(path: str) -> Recorded:
    """All rows of a file. Blank lines are nothing.

    Raises:
        UserError: The file is missing, cannot be read, or holds no JSON object.
    """
    data = _content(path)
    values = _array(path, data) if data.lstrip().startswith(b"[") else _lines(data)
    rows = [value for value in values if isinstance(value, dict)]
    if not rows:
        raise UserError(f"{path} holds no JSON object; give JSON lines or a JSON array (also as .gz)")
    return Recorded(rows, len(values) - len(rows))


def number(value: object) -> float | None:
    """A finite number as it is, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _content(path: str) -> bytes:
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if path.lower().endswith(".gz") else data).removeprefix(codecs.BOM_UTF8)
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{path} cannot be read: {reason}") from None


def _lines(data: bytes) -> list[object]:
    return [_value(line) for line in data.split(b"\n") if line.strip()]


def _value(line: bytes) -> object:
    """What a line says; None if it is no JSON, as where it is cut within a character."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _array(path: str, data: bytes) -> list[object]:
    try:
        values: list[object] = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no whole JSON array ({error}); fetch or write it again") from None
    return values


def left_out_note(lines: int, found: Mapping[str, int]) -> list[str]:
    """A line on the rows that do not count, by what they are; none where all count."""
    texts = [f"{count} {what}" for what, count in found.items() if count]
    return [f"left out of {lines} lines: {', '.join(texts)}"] if texts else []
