"""Reads files of recorded judgments: JSON lines or a JSON array, plain or as .gz."""

from __future__ import annotations

import gzip
import json
import zlib
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
    text = _text(path)
    values = _array(path, text) if text.lstrip().startswith("[") else _lines(text)
    rows = [value for value in values if isinstance(value, dict)]
    if not rows:
        raise UserError(f"{path} holds no JSON object; give JSON lines or a JSON array (also as .gz)")
    return Recorded(rows, len(values) - len(rows))


def number(value: object) -> float | None:
    """A finite number as it is, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _text(path: str) -> str:
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if path.lower().endswith(".gz") else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8; give JSON lines or a JSON array (also as .gz)") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{path} cannot be read: {reason}") from None


def _lines(text: str) -> list[object]:
    return [_value(line) for line in text.split("\n") if line.strip()]


def _value(line: str) -> object:
    """What a line says; None if it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _array(path: str, text: str) -> list[object]:
    try:
        values: list[object] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no whole JSON array ({error}); fetch or write it again") from None
    return values
