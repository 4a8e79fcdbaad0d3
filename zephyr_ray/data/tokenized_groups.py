"""Tokenized pairs -> groups: a row for each prompt, with each completion once and its pairs as numbers of these.

Pairs are of one group where their prompts have the same token ids, in whatever files they lie. Which completion has
which number follows from the pairs' ids alone.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from zephyr_ray.cluster.preload import ROWS
from zephyr_ray.data.io import drop_report, file_tasks, lengths, sources, writer
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.writer import Report
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import GROUPS

_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
_SHARD_PAIRS = 16_384  # whose groups one task makes: about 50 MB of UltraFeedback's
_SHARDS = 256  # at most


def stage(tokenized: Stage) -> Stage:
    """The stage `tokenized_groups`, of the pairs that a policy is trained on."""

    def make(context: StageContext) -> Manifest:
        report = make_groups(context.input(tokenized.kind), context.artifact, progress=context.progress)
        return drop_report.manifest(report) | {"lines": drop_report.lines(report)}

    return Stage("tokenized_groups", "prompts", {}, make, inputs={tokenized.kind: tokenized}, preload=ROWS)


def make_groups(tokenized: Artifact, artifact: Artifact, *, progress: Any = None) -> Report:
    """Writes the groups of all pairs.

    Raises:
        UserError: There are no pairs.
        RuntimeError: Not every pair arrived.
    """
    import ray.data

    pairs = sources.count_rows(tokenized)
    if not pairs:
        raise UserError(f"{tokenized.uri} has no pairs; check what preferences.train names")
    shards = min(_SHARDS, -(-pairs // _SHARD_PAIRS))
    calls = [(paths, tokenized.run.filesystem, shards) for paths in file_tasks.groups(tokenized.files())]
    divided = [[each] if shards == 1 else each for each in file_tasks.start(_pairs_by_shard, calls, results=shards)]
    made = file_tasks.start(groups_of, [tuple(each[shard] for each in divided) for shard in range(shards)])
    report = writer.write(ray.data.from_arrow_refs(made), artifact, GROUPS, measure=_measure, progress=progress)
    arrived = int(report.stats["pairs"]["sum"])
    if arrived != pairs:
        raise RuntimeError(f"{tokenized.uri} holds {pairs} pairs, and {arrived} arrived")
    tokens, one_by_one = (int(report.stats[name]["sum"]) for name in ("tokens", "tokens_pair_by_pair"))
    report.noted = {"pairs": pairs, "tokens": tokens, "tokens_pair_by_pair": one_by_one}
    return report


def groups_of(*tables: pa.Table) -> pa.Table:
    """Pairs (`schemas.TOKENIZED`), all of each prompt -> `rows.mixed_schema(schemas.GROUPS)` rows."""
    found = list(_grouped(pa.concat_tables(tables)))
    columns = {
        "group_id": pa.array([group.name for group in found], pa.string()),
        "prompt_ids": _lists([group.prompt for group in found]),
        "completions": _list_array(
            [len(group.completions) for group in found],
            _lists([completion for group in found for completion in group.completions]),
        ),
        "chosen": _lists([np.array(group.chosen, np.int32) for group in found]),
        "rejected": _lists([np.array(group.rejected, np.int32) for group in found]),
        "pair_ids": pa.array([group.pair_ids for group in found], pa.list_(pa.string())),
    }
    schema = mixed_schema(GROUPS)
    none = {name: pa.nulls(len(found), pa.string()) for name in schema.names if name not in columns}
    return pa.table(columns | none).cast(schema)


class _Group(NamedTuple):
    name: str
    prompt: np.ndarray
    completions: list[np.ndarray]
    chosen: list[int]
    rejected: list[int]
    pair_ids: list[str]


def _grouped(pairs: pa.Table) -> Iterator[_Group]:
    prompts, chosen, rejected = (_Lists.of(pairs[name]) for name in _IDS)
    keys, ids = [_key(prompts[row]) for row in range(len(pairs))], pairs["pair_id"].to_pylist()
    order = sorted(range(len(pairs)), key=lambda row: (keys[row], ids[row]))
    for key, rows in itertools.groupby(order, keys.__getitem__):
        numbers: dict[bytes, int] = {}
        group = _Group(key, np.empty(0, np.int32), [], [], [], [])
        for row in rows:
            group = group._replace(prompt=prompts[row])
            group.pair_ids.append(ids[row])
            for side, completions in ((group.chosen, chosen), (group.rejected, rejected)):
                completion = completions[row]
                number = numbers.setdefault(completion.tobytes(), len(numbers))
                if number == len(group.completions):
                    group.completions.append(completion)
                side.append(number)
        yield group


class _Lists(NamedTuple):
    """A column of token ids by row, without a copy."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> _Lists:
        array = column.combine_chunks()
        return cls(array.values.to_numpy(), array.offsets.to_numpy())

    def __getitem__(self, row: int) -> np.ndarray:  # type: ignore[override]
        return self.values[self.offsets[row] : self.offsets[row + 1]]


def _key(ids: np.ndarray) -> str:
    return hashlib.blake2b(ids.astype("<i4").tobytes(), digest_size=16).hexdigest()


def _lists(parts: Sequence[np.ndarray]) -> pa.ListArray:
    return _list_array([len(part) for part in parts], pa.array(np.concatenate([np.empty(0, np.int32), *parts])))


def _list_array(counts: Sequence[int], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *counts]), pa.int32()), values)


def _pairs_by_shard(paths: Sequence[str], filesystem: pafs.FileSystem, shards: int) -> Any:
    """The pairs of some files for each shard, by their prompts."""
    parts = []
    for path in paths:
        with open_parquet(path, filesystem) as file:
            parts.append(file.read(["pair_id", *_IDS]))
    pairs = pa.concat_tables(parts).replace_schema_metadata()
    prompts = _Lists.of(pairs["prompt_ids"])
    shard_of = np.array([int(_key(prompts[row])[:8], 16) % shards for row in range(len(pairs))])
    found = [pairs.filter(pa.array(shard_of == shard)) for shard in range(shards)]
    return found[0] if shards == 1 else found


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    """Of each group its completions and pairs, its tokens, and what these would be pair by pair, a prompt in each."""
    prompts = pc.list_value_length(kept["prompt_ids"]).to_numpy()
    completions = kept["completions"].combine_chunks()
    sizes = pc.list_value_length(completions.values).to_numpy().astype(np.int64)
    starts = completions.offsets.to_numpy()
    ends = np.cumsum([0, *sizes])
    pairs = pc.list_value_length(kept["chosen"]).to_numpy()
    in_pairs = np.zeros(len(kept), np.int64)
    for side in ("chosen", "rejected"):
        numbers = kept[side].combine_chunks()
        rows = pc.list_parent_indices(numbers).to_numpy()
        np.add.at(in_pairs, rows, sizes[starts[rows] + pc.list_flatten(numbers).to_numpy()])
    return lengths.completions(kept) | {
        "pairs": pairs,
        "tokens": prompts + ends[starts[1:]] - ends[starts[:-1]],
        "tokens_pair_by_pair": prompts * pairs + in_pairs,
    }
