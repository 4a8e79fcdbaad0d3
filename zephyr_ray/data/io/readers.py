"""Streams the rows of one part of a source, in a Ray task: text as chunks of whole JSON lines, Parquet as it is."""

from __future__ import annotations

import codecs
import functools
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from zephyr_ray.cluster.shared_storage import not_here
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import plugin
from zephyr_ray.storage import open_filesystem

CHUNK = pa.schema([("file", pa.string()), ("first", pa.int64()), ("lines", pa.large_binary())])
"""JSON lines of one file, the first of which has the number `first`."""

_CHUNK_BYTES = 1 << 20
_ROWS_PER_BATCH = 256
_SHOWN = 200  # characters of what cannot be decoded
_SPACE = re.compile(r"[\s,]*")


def read_part(batch: pa.Table) -> Iterator[pa.Table]:
    """One `sources.SourcePart` as a stream of `CHUNK` tables; Parquet as `sources.RAW_ROW` tables."""
    (part,) = batch.to_pylist()
    name = part["uri"]
    if part["kind"] == "parquet":
        yield from _read_parquet(name, part["unit"], part["first"])
        return
    match part["kind"]:
        case "lines":
            numbered = _read_lines(name)
        case "array":
            numbered = _join(_read_array(name), 1)
        case "hub":
            numbered = _join(_dump_all(_read_hub(part)), 1)
            name = f"{name}/{part['split']}/{part['unit']}"
    for first, lines in numbered:
        yield pa.table([[name], [first], [lines]], schema=CHUNK)


def call_function(batch: pa.Table) -> Iterator[pa.Table]:
    """The rows that a function of the user's yields, as `CHUNK` tables."""
    (call,) = batch.to_pylist()
    rows = plugin.load("source", call["function"])(seed=call["seed"], **json.loads(call["options"]))
    for first, lines in _join(_dump_all(rows), 1):
        yield pa.table([[call["function"]], [first], [lines]], schema=CHUNK)


def split_lines(chunks: pa.Table) -> pa.Table:
    """`CHUNK` rows -> one row (`sources.RAW_ROW`) for each line that is not blank."""
    if "row" in chunks.column_names:
        return chunks
    sources: list[str] = []
    lines: list[bytes] = []
    for chunk in chunks.to_pylist():
        for number, line in enumerate(chunk["lines"].split(b"\n"), chunk["first"]):
            if line.strip():
                sources.append(f"{chunk['file']}:{number}")
                lines.append(line)
    return pa.table([pa.array(sources, pa.string()), pa.array(lines, pa.large_binary())], names=["source", "line"])


def read_table(batch: pa.Table, *, filesystem: pafs.FileSystem) -> Iterator[pa.Table]:
    """The file that `path` names, some hundred rows at a time."""
    (path,) = batch["path"].to_pylist()
    with open_parquet(path, filesystem) as file:
        for rows in file.iter_batches(batch_size=_ROWS_PER_BATCH):
            yield _table(rows)


def read_rows_left(
    batch: pa.Table, *, filesystem: pafs.FileSystem, id_column: str, is_done: Callable[[pa.ChunkedArray], np.ndarray]
) -> Iterator[pa.Table]:
    """As `read_table`, without the rows that are done by their ids."""
    (path,) = batch["path"].to_pylist()
    with open_parquet(path, filesystem) as file:
        left = ~is_done(file.read([id_column])[id_column])
        if not left.any():
            yield file.schema_arrow.remove_metadata().empty_table()
            return
        first = 0
        for rows in file.iter_batches(batch_size=_ROWS_PER_BATCH):
            wanted = left[first : first + rows.num_rows]
            first += rows.num_rows
            if wanted.any():
                yield _table(rows).filter(pa.array(wanted))


def open_uri(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of a path or URI; fsspec's where pyarrow has none for the scheme.

    Raises:
        UserError: Neither knows the scheme.
    """
    scheme = uri.partition("://")[0]
    if scheme == uri or scheme in ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"):
        return open_filesystem(uri)
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError(f"{uri}: {error}") from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


def first_byte(uri: str) -> bytes:
    """The first byte that is not white space or a byte order mark; b"" where there is none."""
    with _open(uri) as stream:
        text = stream.read(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
        while text:
            if stripped := text.lstrip():
                return stripped[:1]
            text = stream.read(_CHUNK_BYTES)
    return b""


@functools.lru_cache(maxsize=4)
def open_hub(repo: str, split: str, revision: str) -> Any:
    """A split of a dataset as a stream that is not read yet."""
    import datasets

    return datasets.load_dataset(repo, split=split, revision=revision or None, streaming=True)


def _open(uri: str) -> BinaryIO:
    filesystem, path = open_uri(uri)
    # Not pyarrow's own decompression: it stops at the end of the first member of a gzip file and says nothing.
    try:
        stream = filesystem.open_input_stream(path, compression=None)
    except FileNotFoundError:  # which the driver has found
        raise not_here(path) from None
    return cast(BinaryIO, gzip.open(stream) if uri.lower().endswith(".gz") else stream)


def _read_lines(uri: str) -> Iterator[tuple[int, bytes]]:
    """Chunks of whole lines, each with the number of its first line."""
    first, rest = 1, b""
    with _open(uri) as stream:
        for text in _blocks(stream, uri):
            text = rest + (text.removeprefix(codecs.BOM_UTF8) if first == 1 and not rest else text)
            end = text.rfind(b"\n") + 1
            lines, rest = text[:end], text[end:]
            if lines:
                yield first, lines
                first += lines.count(b"\n")
    if rest:
        yield first, rest


def _blocks(stream: BinaryIO, uri: str) -> Iterator[bytes]:
    try:
        while text := stream.read(_CHUNK_BYTES):
            yield text
    except (OSError, EOFError, zlib.error) as error:
        # How many rows are lost is not known, so they cannot be counted as dropped.
        raise UserError(f"{uri} breaks off in the middle ({error}); fetch the file again") from None


def _read_array(uri: str) -> Iterator[bytes]:
    """The elements of a JSON array, each as a line; what cannot be decoded ends it, as one undecodable row."""
    decoder, decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape"), json.JSONDecoder().raw_decode
    buffer, at, opened = "", 0, False
    with _open(uri) as stream:
        for text in _blocks(stream, uri):
            buffer, at = buffer[at:] + decoder.decode(text), 0
            if not opened:
                at, opened = buffer.index("[") + 1, True
            while True:
                at = _skip(buffer, at)
                try:
                    _, end = decode(buffer, at)
                except (ValueError, RecursionError):  # not all of it is here yet, or it is no JSON: known at the end
                    break
                if end == len(buffer) and buffer[-1] not in '}]"':  # a number may go on in the next block
                    break
                yield _line(buffer[at:end])
                at = end
    rest = buffer[_skip(buffer, at) :]
    if not rest.startswith("]"):
        yield _line(f"broken array: {rest[:_SHOWN]}")
    elif rest[1:].strip():
        yield _line(f"broken array: {rest[1 : _SHOWN + 1]}")


def _line(text: str) -> bytes:
    """JSON as one line, in its file's own bytes: a line break is never within a string."""
    return text.replace("\n", " ").encode("utf-8", "surrogateescape")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _read_parquet(uri: str, row_group: int, first: int) -> Iterator[pa.Table]:
    """The rows of a group (`sources.RAW_ROW`), the first of which has the number `first`."""
    filesystem, path = open_uri(uri)
    with open_parquet(path, filesystem) as file:
        for rows in file.iter_batches(batch_size=_ROWS_PER_BATCH, row_groups=[row_group]):
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            structs = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
            yield pa.table({"source": [f"{uri}:{first + n}" for n in range(len(rows))], "row": structs})
            first += len(rows)


def open_parquet(path: str, filesystem: pafs.FileSystem) -> pq.ParquetFile:
    """A file that the driver has found.

    Raises:
        UserError: It is not there: this machine does not see the driver's files.
    """
    try:
        return pq.ParquetFile(path, filesystem=filesystem)
    except FileNotFoundError:
        raise not_here(path) from None


def _table(rows: pa.RecordBatch) -> pa.Table:
    """Rows without what a file says of all of them."""
    return pa.Table.from_batches([rows]).replace_schema_metadata(None)


def _read_hub(part: dict[str, Any]) -> Iterator[Any]:
    dataset = open_hub(part["uri"], part["split"], part["revision"])
    yield from dataset.shard(num_shards=part["units"], index=part["unit"])


def _dump_all(values: Iterable[Any]) -> Iterator[bytes]:
    for value in values:
        yield json.dumps(value, default=str).encode()


def _join(lines: Iterable[bytes], first: int) -> Iterator[tuple[int, bytes]]:
    """Lines -> chunks of about a megabyte."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES:
            yield first, b"\n".join(held)
            first, held, size = first + len(held), [], 0
    if held:
        yield first, b"\n".join(held)
