"""The rows of a training: a memory-mapped table on the worker's disk, in order of ids.

Row number i is the i-th smallest id, so a row has the same number in any partitioning of the files. Nothing but the
ids and the reference log-probs is held in memory.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from filelock import FileLock

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.storage import cache_root
from zephyr_ray.training.sampler import Slot

IGNORED = -100  # torch's label of a token that is not learnt
_JOINED_AT_A_TIME = 4096  # dialogues in memory while they are joined


class Rows(torch.utils.data.Dataset):
    """Rows by `Slot`, as dicts of plain values, with `row` and `loss_scale` beside the columns."""

    def __init__(
        self,
        table: datasets.Dataset,
        order: np.ndarray,
        extra: dict[str, np.ndarray] | None = None,
        loss_on: Literal["all", "assistant"] | None = None,
    ):
        self.table, self.order, self.extra, self.loss_on = table, order, extra or {}, loss_on

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, slot: Slot) -> dict[str, Any]:
        row = dict(self.table[int(self.order[slot.row])])
        for name, values in self.extra.items():
            row[name] = float(values[slot.row])
        if self.loss_on is not None:
            row["labels"] = _labels(row, self.loss_on)
        return {**row, "row": slot.row, "loss_scale": slot.loss_scale}

    def token_counts(self, column: str) -> np.ndarray:
        """Tokens of each row in a column of lists (int64, by row number)."""
        counts = pc.list_value_length(self.table.data.column(column)).to_numpy()
        return counts.astype(np.int64)[self.order]

    def packed_lengths(self) -> np.ndarray:
        """Tokens of each dialogue, or of each pair where its prompt lies once (int64, by row number)."""
        if "input_ids" in self.table.column_names:
            return self.token_counts("input_ids")
        return self.token_counts("prompt_ids") + self.token_counts("chosen_ids") + self.token_counts("rejected_ids")

    def loss_weights(self) -> np.ndarray | None:
        """How many items each row brings to the mean that is the loss of a step (int64, by row number); None: one."""
        return None


class GroupRows(Rows):
    """Prompts with all their completions and the pairs of these (`schemas.GROUPS`), as `Rows`.

    Args:
        table: The groups.
        order: As of `Rows`.
        logps: The reference's log-probs of all completions, group after group by row number (float32); None: there are
            none.
    """

    def __init__(self, table: datasets.Dataset, order: np.ndarray, logps: np.ndarray | None = None):
        super().__init__(table, order)
        self.ends, self.logps = np.cumsum(self.token_counts("completions")), logps

    def __getitem__(self, slot: Slot) -> dict[str, Any]:
        row = super().__getitem__(slot)
        if self.logps is None:
            return row
        end = int(self.ends[slot.row])
        return {**row, "ref_logps": self.logps[end - len(row["completions"]) : end].tolist()}

    def packed_lengths(self) -> np.ndarray:
        """Tokens of each prompt and of all its completions, each once (int64, by row number)."""
        counts = [np.diff(chunk.values.offsets.to_numpy()[chunk.offsets.to_numpy()]) for chunk in self._completions()]
        return self.token_counts("prompt_ids") + np.concatenate(counts).astype(np.int64)[self.order]

    def loss_weights(self) -> np.ndarray:
        """The pairs of each prompt."""
        return self.token_counts("chosen")

    def _completions(self) -> list[pa.ListArray]:
        return list(self.table.data.column("completions").chunks)


class UnpairedRows(Rows):
    """Prompts with a completion each, desirable or not (`schemas.TOKENIZED_UNPAIRED`), as `Rows`.

    Args:
        table: The completions.
        order: As of `Rows`.
        logps: The reference's log-probs of the completions (by row number); None: there are none.
        kl_logps: Those of the partners' completions (float32 [epochs, rows]); of no epoch where none are met.
    """

    partners: np.ndarray | None = None
    """The row whose completion each row's prompt meets (int64 [epochs, rows], `sampler.partners`); None: none does."""

    def __init__(
        self,
        table: datasets.Dataset,
        order: np.ndarray,
        logps: np.ndarray | None = None,
        kl_logps: np.ndarray | None = None,
    ):
        super().__init__(table, order, {} if logps is None else {"ref_logps": logps})
        self.kl_logps = kl_logps
        self.longest = int(self.packed_lengths().max())

    def __getitem__(self, slot: Slot) -> dict[str, Any]:
        row = super().__getitem__(slot)
        if self.partners is None:
            return row
        assert self.kl_logps is not None
        met = self.met_by(row["prompt_ids"], int(self.partners[slot.epoch, slot.row]))
        return {**row, "kl_ids": met, "ref_kl_logps": float(self.kl_logps[slot.epoch, slot.row])}

    def numbers_of(self, ids: pa.ChunkedArray) -> np.ndarray:
        """The numbers of rows by their ids (int64)."""
        known = _take(self.table.data["completion_id"], self.order)
        return pc.index_in(ids.cast(pa.large_string()), known).to_numpy().astype(np.int64)

    def met_by(self, prompt_ids: list[int], partner: int) -> list[int]:
        """The completion of row `partner`, cut so that it is behind the prompt no longer than the longest row."""
        ids: list[int] = self.table[int(self.order[partner])]["completion_ids"]
        return ids[: self.longest - len(prompt_ids)]

    def packed_lengths(self) -> np.ndarray:
        """Tokens of each prompt and its completion (int64, by row number)."""
        return self.token_counts("prompt_ids") + self.token_counts("completion_ids")

    def lengths_with_partners(self) -> np.ndarray:
        """The larger of a row's tokens and of those of its prompt with its partner's completion (int64 [epochs,
        rows])."""
        assert self.partners is not None
        met = self.token_counts("prompt_ids") + self.token_counts("completion_ids")[self.partners]
        return np.maximum(self.packed_lengths(), np.minimum(met, self.longest))


def load_unpaired(tokenized: Artifact, reference_logps: Artifact | None = None) -> UnpairedRows:
    """Completions with labels, with the reference's log-probs where there are any.

    Raises:
        UserError: The reference log-probs are not those of these completions.
    """
    table, order = _memory_map(tokenized, "completion_id")
    if reference_logps is None:
        return UnpairedRows(table, order)
    logps = _logps_of(tokenized, reference_logps, "completion_id", table, order)
    of_partners = pc.list_flatten(logps["ref_kl_logps"]).to_numpy()
    return UnpairedRows(table, order, logps["ref_logps"].to_numpy(), of_partners.reshape(len(order), -1).T)


def load_pairs(tokenized: Artifact, reference_logps: Artifact | None = None) -> Rows:
    """Pairs, with their reference log-probs where there are any.

    Raises:
        UserError: The reference log-probs are not those of these pairs.
    """
    table, order = _memory_map(tokenized, "pair_id")
    if reference_logps is None:
        return Rows(table, order)
    names = ("ref_chosen_logps", "ref_rejected_logps")
    logps = _logps_of(tokenized, reference_logps, "pair_id", table, order)
    return Rows(table, order, {name: logps[name].to_numpy() for name in names})


def load_groups(groups: Artifact, reference_logps: Artifact) -> GroupRows:
    """Prompts with all their completions and the reference's log-probs of these.

    Raises:
        UserError: The reference log-probs are not those of these groups.
    """
    table, order = _memory_map(groups, "group_id")
    by_group = _logps_of(groups, reference_logps, "group_id", table, order)["ref_logps"]
    rows = GroupRows(table, order, pc.list_flatten(by_group).to_numpy())
    if not np.array_equal(pc.list_value_length(by_group).to_numpy(), rows.token_counts("completions")):
        raise UserError(f"{reference_logps.uri} does not belong to {groups.uri}; delete it and run the job again")
    return rows


def _logps_of(
    rows: Artifact, reference_logps: Artifact, id_column: str, table: datasets.Dataset, order: np.ndarray
) -> pa.Table:
    """The reference's log-probs in the order of the rows.

    Raises:
        UserError: They are not those of these rows.
    """
    logps = pq.read_table(reference_logps.files(), filesystem=reference_logps.run.filesystem)
    logp_order = _order(logps[id_column])
    if not _take(logps[id_column], logp_order).equals(_take(table.data[id_column], order)):
        raise UserError(f"{reference_logps.uri} does not belong to {rows.uri}; delete it and run the job again")
    return logps.drop_columns([id_column]).take(pa.array(logp_order))


def load_pairs_with_margins(tokenized: Artifact, preferences: Artifact, scale: float) -> Rows:
    """Pairs, and as `margin` by how much each one's chosen score is over its rejected one, times `scale`.

    Raises:
        UserError: Pairs have no scores.
    """
    table, order = _memory_map(tokenized, "pair_id")
    names = ("score_chosen", "score_rejected")
    scores = pq.read_table(preferences.files(), filesystem=preferences.run.filesystem, columns=["pair_id", *names])
    ids = _take(table.data["pair_id"], order)
    scores = scores.take(pc.index_in(ids, scores["pair_id"].cast(pa.large_string())))
    margins = pc.subtract(*(scores[name].cast(pa.float64()) for name in names))
    if margins.null_count:
        raise UserError(
            f"reward_model.margin={scale:g}: {margins.null_count:,} of {len(margins):,} pairs have no scores; set it "
            "to 0, or give preferences with scores"
        )
    return Rows(table, order, {"margin": scale * margins.to_numpy()})


def load_prompts(prompts: Artifact) -> Rows:
    """Prompts (`schemas.PROMPTS`), as messages."""
    return Rows(*_memory_map(prompts, "prompt_id"))


def load_dialogues(tokenized: Artifact, loss_on: Literal["all", "assistant"]) -> Rows:
    """Tokenized dialogues with labels on all tokens or on the assistant's."""
    table, order = _memory_map(tokenized, "dialogue_id")
    return Rows(table, order, loss_on=loss_on)


def load_joined_dialogues(tokenized: Artifact, length: int) -> Rows:
    """Dialogues joined in order of their ids and cut into rows of exactly `length` tokens, once per machine.

    The tokens after the last full row are left out, as in the alignment handbook's constant-length packing.

    Raises:
        UserError: There is not one full row.
    """
    table, order = _memory_map(tokenized, "dialogue_id")
    path = f"{_local_path(tokenized)}.joined-{length}"
    _once_per_machine(path, lambda partial: write_joined(table.data["input_ids"], order, length, partial))
    joined = datasets.Dataset.from_file(path)
    if len(joined) == 0:
        raise UserError(
            f"sft.packing_strategy=wrapped: all {tokenized.stage} together are shorter than one row of {length} tokens"
        )
    return Rows(joined, np.arange(len(joined)), loss_on="all")


def write_joined(ids: pa.ChunkedArray, order: np.ndarray, length: int, path: str) -> None:
    """Writes an Arrow stream whose rows, `length` tokens each, are those of `ids` one after the other in `order`.

    Args:
        ids: Lists of int32, which may lie on disk: a part of them is read at a time.
        order: Numbers of the lists.
        length: Tokens of a row that is written; what is left at the end is not.
        path: The file.
    """
    tokens = [chunk.values.to_numpy() for chunk in ids.chunks]
    bounds = [chunk.offsets.to_numpy() for chunk in ids.chunks]
    first = np.cumsum([0, *(len(chunk) for chunk in ids.chunks)])  # the number of each chunk's first list
    chunks = np.searchsorted(first, order, side="right") - 1
    places = order - first[chunks]
    schema = pa.schema([("input_ids", pa.list_(pa.int32()))])
    rest = np.empty(0, dtype=np.int32)
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for begin in range(0, len(order), _JOINED_AT_A_TIME):
            some = slice(begin, begin + _JOINED_AT_A_TIME)
            pieces = [
                tokens[chunk][bounds[chunk][place] : bounds[chunk][place + 1]]
                for chunk, place in zip(chunks[some].tolist(), places[some].tolist(), strict=True)
            ]
            stream = np.concatenate([rest, *pieces])
            rows = len(stream) // length
            rest = stream[rows * length :]
            cuts = pa.array(np.arange(rows + 1, dtype=np.int32) * length)
            lists = pa.ListArray.from_arrays(cuts, pa.array(stream[: rows * length]))
            writer.write_batch(pa.record_batch([lists], schema=schema))


def forget(*artifacts: Artifact) -> None:
    """Deletes this machine's copies of the artifacts' rows."""
    for artifact in artifacts:
        for path in glob.glob(glob.escape(_local_path(artifact)) + "*"):
            os.remove(path)


def _labels(row: dict[str, Any], loss_on: str) -> list[int]:
    if loss_on == "all":
        return list(row["input_ids"])
    return [token if ours else IGNORED for token, ours in zip(row["input_ids"], row["assistant_mask"], strict=True)]


def _memory_map(artifact: Artifact, id_column: str) -> tuple[datasets.Dataset, np.ndarray]:
    """The table on local disk (made once per machine), and the order that sorts its ids."""
    path = _local_path(artifact)
    _once_per_machine(path, lambda partial: _write_arrow(artifact, partial))
    table = datasets.Dataset.from_file(path)
    return table, _order(table.data[id_column])


def _order(ids: pa.ChunkedArray) -> np.ndarray:
    return pc.sort_indices(ids).to_numpy().astype(np.int64)


def _take(ids: pa.ChunkedArray, order: np.ndarray) -> pa.ChunkedArray:
    return ids.cast(pa.large_string()).take(pa.array(order))


def _local_path(artifact: Artifact) -> str:
    manifest = artifact.manifest()
    if manifest is None:
        raise UserError(
            f"{artifact.uri} is not finished; make it first: zephyr-ray run RECIPE --until {artifact.stage}"
        )
    place = content_id(artifact.uri, manifest["fingerprint"])
    return os.path.join(cache_root(), "rows", f"{artifact.stage}-{place}.arrow")


def _once_per_machine(path: str, write: Callable[[str], None]) -> None:
    """Writes a file that is not there; other processes wait for it, and none sees a part of it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with FileLock(path + ".lock"):
        if not os.path.exists(path):
            write(path + ".partial")
            os.replace(path + ".partial", path)


def _write_arrow(artifact: Artifact, path: str) -> None:
    writer = None
    with pa.OSFile(path, "wb") as sink:
        for name in artifact.files():
            source = pq.ParquetFile(name, filesystem=artifact.run.filesystem)
            for batch in source.iter_batches():
                writer = writer or pa.ipc.new_stream(sink, batch.schema)
                writer.write_batch(batch)
        if writer is not None:
            writer.close()
