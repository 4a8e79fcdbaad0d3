"""Token ids of preference pairs, cut to length, ready for DPO. Every token that is cut off is counted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from zephyr_ray import chat_template
from zephyr_ray.chat_template import EncodedPair, encode_pairs
from zephyr_ray.cluster.preload import TOKENS
from zephyr_ray.config.data import Tokenized
from zephyr_ray.config.model import Chat
from zephyr_ray.config.section import semantic
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import dropped_row, mixed_schema
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import TOKENIZED, Dropped, Reason

_BATCH_ROWS = 512  # rows that one call of the tokenizer takes


class Truncated(NamedTuple):
    """A pair cut to length, and how many tokens each part lost."""

    pair: EncodedPair
    prompt: int
    chosen: int
    rejected: int


def stage(
    section: Tokenized, pairs: Stage, model: ModelInput, chat: Chat, max_dropped: float, kind: str = "tokenized"
) -> Stage:
    """The stage `tokenized`, or another one that tokenizes pairs.

    Args:
        section: Lengths.
        pairs: What is tokenized.
        model: Whose tokenizer it is.
        chat: Its template.
        max_dropped: Largest share of the rows that may be dropped.
        kind: The stage's.
    """

    def make(context: StageContext) -> Manifest:
        tokenizer = TokenizerSource(model.source(context.run), chat)
        report = make_tokenized(
            section, tokenizer, context.input(pairs.kind), context.artifact, progress=context.progress
        )
        return drop_report.examined(report, max_dropped, context.artifact)

    # Pairs of zephyr_legacy were once cut as `modern` cuts them.
    legacy_cut = {"cut": "trl-0.7"} if chat.tokenization == "zephyr_legacy" else {}
    return Stage(
        kind,
        "pairs",
        {"chat": semantic(chat), "tokenized": semantic(section)} | legacy_cut,
        make,
        inputs={pairs.kind: pairs, **model.inputs},
        outside=lambda: chat_template.fingerprints(chat) | model.outside(),
        commits=model.commits,
        reads_weights=False,
        local_files=model.local_files,
        preload=TOKENS,
    )


def make_tokenized(
    section: Tokenized,
    source: TokenizerSource,
    preferences: Artifact,
    artifact: Artifact,
    *,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the token ids of every preference pair.

    Args:
        section: Lengths.
        source: Whose tokens they are.
        preferences: What is read.
        artifact: What is written.
        progress: Told of rows as they are done.

    Raises:
        UserError: No preferences, or no tokenizer that loads.
        RuntimeError: Not every row arrived.
    """
    source.load()  # a wrong path fails here, before any Ray work
    tokenize = functools.partial(
        tokenize_rows, source=source, max_length=section.max_length, max_prompt_length=section.max_prompt_length
    )
    rows = sources.read_artifact(preferences).map_batches(tokenize, batch_format="pyarrow", batch_size=_BATCH_ROWS)
    report = writer.write(rows, artifact, TOKENIZED, measure=_measure, progress=progress)
    sources.check_all_read(preferences, report.rows_in)
    return report


def tokenize_rows(batch: pa.Table, *, source: TokenizerSource, max_length: int, max_prompt_length: int) -> pa.Table:
    """`schemas.PREFERENCES` rows -> `rows.mixed_schema(schemas.TOKENIZED)` rows."""
    raw = batch.to_pylist()
    messages = [(row["prompt"], row["chosen"], row["rejected"]) for row in raw]
    encoded = source.encode_each(encode_pairs, messages)
    cut = functools.partial(
        truncate, max_length=max_length, max_prompt_length=max_prompt_length, tokenization=source.chat.tokenization
    )
    eos = source.load().eos_token_id
    encoded = [
        each if isinstance(each, Dropped) else _without_ends(each, row, eos)
        for row, each in zip(raw, encoded, strict=True)
    ]
    rows = [_row(row, pair, cut) for row, pair in zip(raw, encoded, strict=True)]
    return pa.Table.from_pylist(rows, schema=mixed_schema(TOKENIZED))


def _without_ends(pair: EncodedPair, row: dict[str, Any], eos: int) -> EncodedPair:
    """The pair without what the template writes behind completions that did not end of themselves."""
    cut = {f"{side}_ids" for side in ("chosen", "rejected") if row.get(f"{side}_cut")}
    return pair._replace(**{name: without_end(getattr(pair, name), eos) for name in cut})


def without_end(ids: list[int], eos: int) -> list[int]:
    """A completion's ids up to its first end-of-sequence token, which no text can hold."""
    return ids[: ids.index(eos)] if eos in ids else ids


def truncate(pair: EncodedPair, max_length: int, max_prompt_length: int, tokenization: str) -> Truncated:
    """Cuts a pair to length, in the way of `chat.tokenization`. A completion that is cut has lost its end-of-sequence
    token with the rest, so the model does not learn to stop there.
    """
    how = _cut_as_old_trl if tokenization == "zephyr_legacy" else _cut
    cut = how(pair, max_length, max_prompt_length)
    return Truncated(cut, *(len(before) - len(after) for before, after in zip(pair, cut, strict=True)))


def _cut(pair: EncodedPair, max_length: int, max_prompt_length: int) -> EncodedPair:
    """The prompt keeps its end, up to `max_prompt_length` tokens; each completion its beginning, up to what is left."""
    prompt = pair.prompt_ids[-max_prompt_length:]
    room = max_length - len(prompt)
    return EncodedPair(prompt, pair.chosen_ids[:room], pair.rejected_ids[:room])


def _cut_as_old_trl(pair: EncodedPair, max_length: int, max_prompt_length: int) -> EncodedPair:
    """TRL 0.7's rule (`tokenize_batch_element`, `truncation_mode=keep_end`), which trained the published Zephyr.

    Nothing is cut while the prompt and the longer completion fit. Else the prompt keeps its last `max_prompt_length`
    tokens, and where that is not enough both completions keep their first `max_length - max_prompt_length`, even where
    the prompt is shorter.
    """
    prompt, chosen, rejected = pair
    longer = max(len(chosen), len(rejected))
    if len(prompt) + longer > max_length:
        prompt = prompt[-max_prompt_length:]
    if len(prompt) + longer > max_length:
        room = max_length - max_prompt_length
        chosen, rejected = chosen[:room], rejected[:room]
    return EncodedPair(prompt, chosen, rejected)


def _row(
    raw: dict[str, Any], encoded: EncodedPair | Dropped, cut: Callable[[EncodedPair], Truncated]
) -> dict[str, Any]:
    if isinstance(encoded, Dropped):
        return dropped_row(raw["source"], encoded)
    pair, *lost = cut(encoded)
    if not all(pair):
        empty = [name for name, ids in pair._asdict().items() if not ids]
        return dropped_row(raw["source"], Dropped(Reason.EMPTY, f"no tokens in {', '.join(empty)}"))
    if pair.chosen_ids == pair.rejected_ids:
        return dropped_row(raw["source"], Dropped(Reason.IDENTICAL_PAIR, "both completions have the same tokens"))
    counts = dict(zip(_TRUNCATED, lost, strict=True))
    return {"pair_id": raw["pair_id"], **pair._asdict(), **counts, "source": raw["source"]}


_TRUNCATED: Sequence[str] = ("prompt_truncated", "chosen_truncated", "rejected_truncated")


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    measured = lengths.tokens(kept, ("prompt_ids", "chosen_ids", "rejected_ids"))
    return measured | {name: kept[name].to_numpy() for name in _TRUNCATED}
