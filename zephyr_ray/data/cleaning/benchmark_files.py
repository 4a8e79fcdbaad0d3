"""Files of benchmark prompts, as users find them."""

from __future__ import annotations

import ast
import csv
import gzip
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from zephyr_ray.data.io.readers import open_uri
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.fingerprints import content_id

_KEYS = ("turns", "instruction", "prompt", "question")


class BenchmarkPrompt(NamedTuple):
    """A prompt of a benchmark, and where it is from."""

    file: str
    """Name of the file without its folder."""
    line: int
    """Line, array element or row of CSV, from 1."""
    text: str


def read_prompts(files: Sequence[str], field: str) -> tuple[BenchmarkPrompt, ...]:
    """The prompts of benchmark files. For the driver.

    Args:
        files: Paths or URIs: JSON lines (.jsonl) or a JSON array (.json) with `turns` (MT-Bench), `instruction`
            (AlpacaEval), `prompt` or `question`; CSV (.csv) with a column of such a name, or without a header and with
            the question first (MMLU); any other file is text with a prompt in each line, plain or as a Python literal
            (TruthfulQA). Each also as .gz.
        field: The recipe's field that names them.

    Raises:
        UserError: A file is missing, cannot be read, or holds something else.
    """
    return tuple(prompt for name in files for prompt in _read_prompts(name, field))


def fingerprints(files: Sequence[str], field: str) -> dict[str, str]:
    """{"decontaminate": a fingerprint of the files' content}, or empty if no file is named.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    return {"decontaminate": content_id([_read_text(name, field) for name in files])} if files else {}


def _read_prompts(name: str, field: str) -> list[BenchmarkPrompt]:
    text = _read_text(name, field)
    file = posixpath.basename(name)
    try:
        prompts = [
            BenchmarkPrompt(file, line, prompt)
            for line, row in _rows(name, text)
            for prompt in _prompts_of(row, f"{name}:{line}")
        ]
    except UserError as error:
        raise UserError(f"{field}: {error}") from None
    if not prompts:
        raise UserError(f"{field}: {name} holds no benchmark prompt")
    return prompts


def _rows(name: str, text: str) -> Iterable[tuple[int, Any]]:
    ending = name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending in ("json", "jsonl", "ndjson"):
        return _json_rows(name, text)
    return _csv_rows(text) if ending == "csv" else _text_rows(text)


def _read_text(name: str, field: str) -> str:
    filesystem, path = open_uri(name)
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            data = stream.read()
        return (gzip.decompress(data) if name.lower().endswith(".gz") else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{field}: {name} is no text in UTF-8; name files of JSON lines, JSON, CSV or text") from None
    except (OSError, EOFError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:200]
        raise UserError(f"{field}: {name} cannot be read: {reason}") from None


def _json_rows(name: str, text: str) -> Iterable[tuple[int, Any]]:
    if text.lstrip().startswith("["):
        return list(enumerate(_parse_json(text, name), 1))
    lines = enumerate(text.split("\n"), 1)
    return [(number, _parse_json(line, f"{name}:{number}")) for number, line in lines if line.strip()]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Rows with the names of the header, or the first cell of each where no name of it is a prompt's."""
    rows = [row for row in csv.reader(text.splitlines(keepends=True)) if row]
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if not set(names) & set(_KEYS):
        return ((number, row[0]) for number, row in enumerate(rows, 1))
    return ((number, dict(zip(names, row, strict=False))) for number, row in enumerate(rows[1:], 2))


def _text_rows(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _parse_literal(line.strip())


def _parse_literal(line: str) -> Any:
    """The value of a line that is a Python string or dict literal; otherwise the line."""
    if line[0] not in "'\"{":
        return line
    try:
        value = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return line
    return value if isinstance(value, (str, Mapping)) else line


def _prompts_of(row: Any, where: str) -> list[str]:
    value = next((row[key] for key in _KEYS if key in row), None) if isinstance(row, Mapping) else row
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    if not texts or (isinstance(value, list) and len(texts) < len(value)):
        raise UserError(f"{where} has no prompt: give text, or one of the keys {', '.join(_KEYS)}")
    return texts
