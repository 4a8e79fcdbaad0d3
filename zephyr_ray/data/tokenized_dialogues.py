"""Token ids of dialogues by the base model's tokenizer, and which of them the assistant wrote.

A dialogue that is too long loses its tail; one that has no token of an answer left is dropped. Where rows are packed,
nothing is cut here: packing joins whole dialogues.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from zephyr_ray import chat_template
from zephyr_ray.chat_template import EncodedDialogue, encode_dialogues
from zephyr_ray.cluster.preload import TOKENS
from zephyr_ray.config.model import Chat
from zephyr_ray.config.section import semantic
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import dropped_row, mixed_schema
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import TOKENIZED_DIALOGUES, Dropped, Reason

_BATCH_ROWS = 512  # rows that one call of the tokenizer takes


def stage(dialogues: Stage, base: ModelInput, chat: Chat, max_length: int | None, max_dropped: float) -> Stage:
    """The stage `tokenized_dialogues`.

    Args:
        dialogues: What is tokenized.
        base: Whose tokenizer it is.
        chat: Its template.
        max_length: Tokens of a row; None: all of them.
        max_dropped: Largest share of the rows that may be dropped.
    """

    def make(context: StageContext) -> Manifest:
        tokenizer = TokenizerSource(base.source(context.run), chat)
        report = make_tokenized_dialogues(
            tokenizer, context.input("dialogues"), context.artifact, max_length, progress=context.progress
        )
        return drop_report.examined(report, max_dropped, context.artifact)

    return Stage(
        "tokenized_dialogues",
        "rows",
        {"chat": semantic(chat), "max_length": max_length},
        make,
        inputs={"dialogues": dialogues, **base.inputs},
        outside=lambda: chat_template.fingerprints(chat) | base.outside(),
        commits=base.commits,
        reads_weights=False,
        local_files=base.local_files,
        preload=TOKENS,
        check=base.check_named,
    )


def make_tokenized_dialogues(
    source: TokenizerSource,
    dialogues: Artifact,
    artifact: Artifact,
    max_length: int | None,
    *,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the token ids of every dialogue and which of them the assistant wrote.

    Raises:
        UserError: No dialogues, or no tokenizer that loads.
        RuntimeError: Not every row arrived.
    """
    source.load()  # a wrong path fails here, before any Ray work
    tokenize = functools.partial(tokenize_rows, source=source, max_length=max_length)
    rows = sources.read_artifact(dialogues).map_batches(tokenize, batch_format="pyarrow", batch_size=_BATCH_ROWS)
    report = writer.write(rows, artifact, TOKENIZED_DIALOGUES, measure=_measure, progress=progress)
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
    return lengths.tokens(kept, ("input_ids",)) | {"truncated": kept["truncated"].to_numpy()}
