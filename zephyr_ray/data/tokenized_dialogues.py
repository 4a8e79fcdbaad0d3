"""reads: dialogues + the base model's tokenizer -> writes: tokenized_dialogues

A dialogue that is too long loses its tail; one that has no token of an answer left is dropped. Where rows are packed,
nothing is cut here: packing joins whole dialogues.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from zephyr_ray.artifacts import Artifact
from zephyr_ray.chat_template import EncodedDialogue, encode_dialogues
from zephyr_ray.data import measures, sink, sources
from zephyr_ray.data.layouts import Dropped, Reason
from zephyr_ray.data.rows import dropped_row, mixed_schema
from zephyr_ray.data.sink import Progress, Report
from zephyr_ray.data.tokenizer import TokenizerSource
from zephyr_ray.models import ModelSource
from zephyr_ray.recipe import Recipe
from zephyr_ray.schemas import TOKENIZED_DIALOGUES

_BATCH_ROWS = 512  # rows that one call of the tokenizer takes


def make_tokenized_dialogues(
    recipe: Recipe,
    dialogues: Artifact,
    artifact: Artifact,
    model: ModelSource,
    *,
    progress: Progress | None = None,
) -> Report:
    """Writes the token ids of every dialogue and which of them the assistant wrote.

    Raises:
        UserError: No dialogues, or no tokenizer that loads.
        RuntimeError: Not every row arrived.
    """
    assert recipe.sft is not None
    source = TokenizerSource(model, recipe.chat)
    source.load()  # a wrong path fails here, before any Ray work
    max_length = None if recipe.sft.packing else recipe.sft.max_length
    tokenize = functools.partial(tokenize_rows, source=source, max_length=max_length)
    rows = sources.read_artifact(dialogues).map_batches(tokenize, batch_format="pyarrow", batch_size=_BATCH_ROWS)
    report = sink.write(rows, artifact, TOKENIZED_DIALOGUES, measure=_measure, progress=progress)
    sources.check_all_read(dialogues, report.rows_in)
    return report


def tokenize_rows(batch: pa.Table, *, source: TokenizerSource, max_length: int | None) -> pa.Table:
    """`schemas.DIALOGUES` rows -> `rows.mixed_schema(schemas.TOKENIZED_DIALOGUES)` rows."""
    raw = batch.to_pylist()
    encoded = source.encode_each(encode_dialogues, [row["messages"] for row in raw])
    rows = [_row(row, dialogue, max_length) for row, dialogue in zip(raw, encoded, strict=True)]
    return pa.Table.from_pylist(rows, schema=mixed_schema(TOKENIZED_DIALOGUES))


def truncate(dialogue: EncodedDialogue, max_length: int | None) -> tuple[EncodedDialogue, int]:
    """The first `max_length` tokens (None: all of them), and how many were cut off."""
    cut = EncodedDialogue(dialogue.input_ids[:max_length], dialogue.assistant_mask[:max_length])
    return cut, len(dialogue.input_ids) - len(cut.input_ids)


def _row(raw: dict[str, Any], encoded: EncodedDialogue | Dropped, max_length: int | None) -> dict[str, Any]:
    if isinstance(encoded, Dropped):
        return dropped_row(raw["source"], encoded)
    dialogue, lost = truncate(encoded, max_length)
    if not any(dialogue.assistant_mask):
        return dropped_row(raw["source"], Dropped(Reason.PROMPT_TOO_LONG, f"no answer within {max_length} tokens"))
    return {"dialogue_id": raw["dialogue_id"], **dialogue._asdict(), "truncated": lost, "source": raw["source"]}


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return measures.tokens(kept, ("input_ids",)) | {"truncated": kept["truncated"].to_numpy()}
