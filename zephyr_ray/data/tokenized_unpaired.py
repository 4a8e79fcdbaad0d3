"""Token ids of completions with labels, cut to length as those of pairs are (`tokenized`)."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from zephyr_ray.chat_template import EncodedPair, encode_pairs
from zephyr_ray.config.data import Tokenized
from zephyr_ray.config.model import Chat
from zephyr_ray.data import tokenized
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import dropped_row, mixed_schema
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import TOKENIZED_UNPAIRED, Dropped, Reason

_BATCH_ROWS = 512  # rows that one call of the tokenizer takes


def stage(section: Tokenized, unpaired: Stage, model: ModelInput, chat: Chat, max_dropped: float) -> Stage:
    """The stage `tokenized_unpaired`. Arguments as of `tokenized.stage`."""

    def make(context: StageContext) -> Manifest:
        tokenizer = TokenizerSource(model.source(context.run), chat)
        report = make_tokenized_unpaired(
            section, tokenizer, context.input(unpaired.kind), context.artifact, progress=context.progress
        )
        return drop_report.examined(report, max_dropped, context.artifact)

    of_pairs = tokenized.stage(section, unpaired, model, chat, max_dropped, "tokenized_unpaired")
    return replace(of_pairs, unit="rows", make=make)


def make_tokenized_unpaired(
    section: Tokenized,
    source: TokenizerSource,
    unpaired: Artifact,
    artifact: Artifact,
    *,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the token ids of every completion, and counts the labels.

    Raises:
        UserError: No completions, or no tokenizer that loads.
        RuntimeError: Not every row arrived.
    """
    source.load()  # a wrong path fails here, before any Ray work
    tokenize = functools.partial(tokenize_rows, source=source, section=section)
    rows = sources.read_artifact(unpaired).map_batches(tokenize, batch_format="pyarrow", batch_size=_BATCH_ROWS)
    report = writer.write(rows, artifact, TOKENIZED_UNPAIRED, measure=_measure, progress=progress)
    sources.check_all_read(unpaired, report.rows_in)
    if labels := report.stats.pop("desirable", None):
        desirable = int(labels["sum"])
        report.noted = {"desirable": desirable, "undesirable": report.rows_out - desirable}
    return report


def tokenize_rows(batch: pa.Table, *, source: TokenizerSource, section: Tokenized) -> pa.Table:
    """`schemas.UNPAIRED` rows -> `rows.mixed_schema(schemas.TOKENIZED_UNPAIRED)` rows.

    A completion is tokenized and cut as both sides of a pair, so that it has the ids that it has in a pair.
    """
    raw = batch.to_pylist()
    encoded = source.encode_each(encode_pairs, [(row["prompt"], row["completion"], row["completion"]) for row in raw])
    tokenization, eos = source.chat.tokenization, source.load().eos_token_id
    encoded = [
        each if isinstance(each, Dropped) or not row["is_cut"] else _without_end(each, eos)
        for row, each in zip(raw, encoded, strict=True)
    ]
    rows = [_row(row, pair, section, tokenization) for row, pair in zip(raw, encoded, strict=True)]
    return pa.Table.from_pylist(rows, schema=mixed_schema(TOKENIZED_UNPAIRED))


def _without_end(pair: EncodedPair, eos: int) -> EncodedPair:
    """Of a completion that did not end of itself; both sides of the pair are that completion."""
    ids = tokenized.without_end(pair.chosen_ids, eos)
    return EncodedPair(pair.prompt_ids, ids, ids)


def _row(raw: dict[str, Any], encoded: EncodedPair | Dropped, section: Tokenized, tokenization: str) -> dict[str, Any]:
    if isinstance(encoded, Dropped):
        return dropped_row(raw["source"], encoded)
    cut = tokenized.truncate(encoded, section.max_length, section.max_prompt_length, tokenization)
    prompt, completion, _ = cut.pair
    if not prompt or not completion:
        empty = "the completion" if prompt else "the prompt"
        return dropped_row(raw["source"], Dropped(Reason.EMPTY, f"no tokens in {empty}"))
    return {
        "completion_id": raw["completion_id"],
        "prompt_ids": prompt,
        "completion_ids": completion,
        "label": raw["label"],
        "prompt_truncated": cut.prompt,
        "completion_truncated": cut.chosen,
        "source": raw["source"],
    }


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    cut = {name: kept[name].to_numpy() for name in ("prompt_truncated", "completion_truncated")}
    labels = kept["label"].to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths.tokens(kept, ("prompt_ids", "completion_ids")) | cut | {"desirable": labels}
