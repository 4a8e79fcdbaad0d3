"""Writes made-up artifacts of any number of rows, in bulk, for benchmarks/scale.py."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import CANDIDATES, JUDGMENTS, PREFERENCES, PROMPTS, TOKENIZED

ROWS_PER_FILE = 4096
_TEXT = " ".join(f"word{number}" for number in range(40))


def ids(numbers: np.ndarray) -> pa.Array:
    """An id for each number: 32 hex digits that look drawn, those of different numbers different."""
    rows = len(numbers)
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)  # odd, so that no two products modulo 2^64 are alike
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    digits = np.stack([mixed, numbers], axis=1).astype(">u8").tobytes().hex().encode()
    return pa.Array.from_buffers(
        pa.string(), rows, [None, pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * 32), pa.py_buffer(digits)]
    )


def prompts(first: int, rows: int, distinct: int | None = None) -> pa.Table:
    """`schemas.PROMPTS` rows of 300 characters, by their numbers; so many are distinct, the others repeat the first."""
    numbers = np.arange(first, first + rows, dtype=np.uint64)
    row_ids = ids(numbers % np.uint64(distinct or first + rows))
    content = pc.binary_join_element_wise(row_ids, pa.scalar(_TEXT), " ")
    columns = {"prompt_id": row_ids, "messages": _lists({"role": pa.repeat("user", rows), "content": content})}
    sources = pc.binary_join_element_wise(pa.scalar("made"), pc.cast(pa.array(numbers), pa.string()), ":")
    return _table(columns | {"source": sources}, PROMPTS)


def candidates(rows: pa.Table) -> dict[str, Any]:
    """The columns of `schemas.CANDIDATES` rows with one completion each, of prompts."""
    count = rows.num_rows
    completion = {
        "model": pa.repeat("m", count),
        "content": pc.binary_join_element_wise(rows["prompt_id"].combine_chunks(), pa.scalar(_TEXT), " "),
        "finish_reason": pa.repeat("stop", count),
    }
    kind = CANDIDATES.field("completions").type.value_type
    every = {field.name: completion.get(field.name, pa.nulls(count, field.type)) for field in kind}
    return {name: rows[name] for name in PROMPTS.names} | {"completions": _lists(every)}


def write_prompts(artifact: Artifact, rows: int, distinct: int | None = None) -> dict[str, int]:
    """An artifact's files, and how many rows each holds."""
    artifact.begin("benchmark")
    return _write(artifact, rows, lambda first, count: prompts(first, count, distinct))


def write_half_of_candidates(artifact: Artifact, rows: int) -> None:
    """What a killed try leaves: every second file of rows."""
    artifact.begin("benchmark")
    _write(artifact, rows, lambda first, count: _table(candidates(prompts(first, count)), CANDIDATES), step=2)


def finish(artifact: Artifact, files: Mapping[str, int], *, with_rows: bool = True, **more: Any) -> None:
    """Writes the manifest, which tells rows of files or only their names, and what more is given."""
    entries = [{"name": name, "rows": count} if with_rows else name for name, count in sorted(files.items())]
    artifact.finish({"fingerprint": "benchmark", "files": entries, **more})


def write_trained_run(run: Run, rows: int) -> tuple[str, str]:
    """A run with so many prompts, judgments, pairs and tokenized pairs, and a model that was trained on them.

    Returns:
        The ids of a pair and of another prompt.
    """
    judged = run.artifact("judgments")
    made: dict[str, Callable[[int, int], pa.Table]] = {
        "prompts": prompts,
        "judgments": judgments,
        "preferences": lambda first, count: pairs(first, count, judged.uri),
        "tokenized": tokenized,
    }
    before: dict[str, str] = {}
    for stage, make in made.items():
        artifact = run.artifact(stage)
        artifact.begin(stage)
        counts = {"in": rows, "out": rows, "dropped": {}}
        finish(artifact, _write(artifact, rows, make), counts=counts, inputs=before, config={}, fingerprint=stage)
        before = {stage: stage}
    dpo = run.artifact("dpo")
    dpo.begin("dpo")
    config = {"dpo": {"global_batch": 32, "epochs": 1.0}, "model": {}, "seed": 0}
    finish(dpo, {}, inputs=before, config=config, checkpoint="checkpoint", fingerprint="dpo")
    return ids(_pair_numbers(rows // 2, 1))[0].as_py(), ids(np.array([rows // 3], np.uint64))[0].as_py()


def judgments(first: int, rows: int) -> pa.Table:
    """`schemas.JUDGMENTS` rows with one rated completion and one reply each."""
    columns = candidates(prompts(first, rows))
    reply = {"judge": pa.repeat("j", rows), "raw": pa.repeat(_TEXT, rows)}
    kind = JUDGMENTS.field("replies").type.value_type
    every = {field.name: reply.get(field.name, pa.nulls(rows, field.type)) for field in kind}
    completions = columns["completions"].values
    fields = JUDGMENTS.field("completions").type.value_type
    there = {field.name for field in completions.type}
    rated = {
        each.name: completions.field(each.name) if each.name in there else pa.nulls(rows, each.type) for each in fields
    }
    rated["overall_score"] = pa.repeat(5.0, rows)
    return _table(columns | {"completions": _lists(rated), "replies": _lists(every)}, JUDGMENTS)


def pairs(first: int, rows: int, judged: str) -> pa.Table:
    """`schemas.PREFERENCES` rows, of judged rows at this place."""
    asked, pair_ids = prompts(first, rows), ids(_pair_numbers(first, rows))
    role, answers = pa.repeat("assistant", rows), pc.binary_join_element_wise(pair_ids, pa.scalar(_TEXT), " ")
    rejected = pc.binary_join_element_wise(answers, pa.scalar("worse"), " ")
    file = f"{judged}/data/{first // ROWS_PER_FILE:06d}-000.parquet"
    columns = {
        "pair_id": pair_ids,
        "prompt": asked["messages"],
        "chosen": _lists({"role": role, "content": answers}),
        "rejected": _lists({"role": role, "content": rejected}),
        "source": pa.array([f"{file}:{number}" for number in range(1, rows + 1)]),
    }
    return _table(columns, PREFERENCES)


def tokenized(first: int, rows: int) -> pa.Table:
    """`schemas.TOKENIZED` rows of 150 tokens."""
    tokens = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * 50, pa.array(np.ones(50 * rows, np.int32)))
    columns = dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), tokens)
    return _table({"pair_id": ids(_pair_numbers(first, rows)), **columns}, TOKENIZED)


def _pair_numbers(first: int, rows: int) -> np.ndarray:
    """Numbers of pairs, which no prompt has."""
    return np.arange(first, first + rows, dtype=np.uint64) + np.uint64(1 << 62)


def write_lines(path: Path, rows: int) -> None:
    """JSON lines of 300 bytes."""
    line = b'{"prompt": "' + _TEXT.encode() + b'"}\n'
    with path.open("wb") as stream:
        for first in range(0, rows, 10_000):
            stream.write(line * min(10_000, rows - first))


def _write(artifact: Artifact, rows: int, make: Callable[[int, int], pa.Table], step: int = 1) -> dict[str, int]:
    for folder in ("data", "dropped"):
        Path(artifact.path, folder).mkdir(parents=True, exist_ok=True)
    written = {}
    for first in range(0, rows, step * ROWS_PER_FILE):
        name = artifact.new_name(f"data/{first // ROWS_PER_FILE:06d}-000.parquet")
        table = make(first, min(ROWS_PER_FILE, rows - first))
        pq.write_table(table, posixpath.join(artifact.path, name), compression="zstd")
        written[name] = table.num_rows
    return written


def _lists(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Lists of one struct each."""
    structs = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    return pa.ListArray.from_arrays(np.arange(len(structs) + 1, dtype=np.int32), structs)


def _table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Columns in the schema's order, with nulls for those that there are not."""
    rows = len(next(iter(columns.values())))
    return pa.table([columns.get(field.name, pa.nulls(rows, field.type)) for field in schema], schema.names).cast(
        schema
    )
