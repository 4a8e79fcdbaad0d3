"""Token ids of dialogues by the base model's tokenizer, and which of them the assistant wrote.

A dialogue that is too long keeps as many of its first turns as fit and ends with an answer. Where not even the first
answer fits, that is cut within, as TRL cuts; where none of it does, the dialogue is dropped. Nothing is cut where
dialogues are joined to blocks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from zephyr_ray import chat_template
from zephyr_ray.answers import EncodedDialogue, check_answers, encode_dialogues
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

Messages = list[dict[str, str]]

_BATCH_ROWS = 512  # rows that one call of the tokenizer takes


class Cut(NamedTuple):
    """A dialogue cut to length, and what it lost."""

    dialogue: EncodedDialogue
    tokens: int = 0
    turns: int = 0
    """Messages of which nothing is left."""
    is_within: bool = False
    """Whether its only answer is cut, too."""


def stage(
    dialogues: Stage,
    base: ModelInput,
    chat: Chat,
    max_length: int | None,
    max_dropped: float,
    kind: str = "tokenized_dialogues",
    only_last_answer: bool = False,
) -> Stage:
    """The stage `tokenized_dialogues`, or another one that tokenizes dialogues.

    Args:
        dialogues: What is tokenized.
        base: Whose tokenizer it is.
        chat: Its template.
        max_length: Tokens of a row; None: all of them.
        max_dropped: Largest share of the rows that may be dropped.
        kind: The stage's.
        only_last_answer: Whether of each dialogue the last answer alone is learnt.
    """

    def make(context: StageContext) -> Manifest:
        tokenizer = TokenizerSource(base.source(context.run), chat)
        report = make_tokenized_dialogues(
            tokenizer,
            context.input(dialogues.kind),
            context.artifact,
            max_length,
            only_last_answer=only_last_answer,
            progress=context.progress,
        )
        return drop_report.examined(report, max_dropped, context.artifact)

    return Stage(
        kind,
        "rows",
        {"chat": semantic(chat), "max_length": max_length} | ({"only_last_answer": True} if only_last_answer else {}),
        make,
        inputs={dialogues.kind: dialogues, **base.inputs},
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
    only_last_answer: bool = False,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the token ids of every dialogue and which of them the assistant wrote.

    Raises:
        UserError: No dialogues, no tokenizer that loads, or a chat template whose answers cannot be learnt.
        RuntimeError: Not every row arrived.
    """
    check_answers(source.load(), source.chat.tokenization)  # what is wrong fails here, before any Ray work
    tokenize = functools.partial(tokenize_rows, source=source, max_length=max_length, only_last_answer=only_last_answer)
    rows = sources.read_artifact(dialogues).map_batches(tokenize, batch_format="pyarrow", batch_size=_BATCH_ROWS)
    report = writer.write(rows, artifact, TOKENIZED_DIALOGUES, measure=_measure, progress=progress)
    sources.check_all_read(dialogues, report.rows_in)
    return _with_cuts(report)


def tokenize_rows(
    batch: pa.Table, *, source: TokenizerSource, max_length: int | None, only_last_answer: bool = False
) -> pa.Table:
    """`schemas.DIALOGUES` rows -> `rows.mixed_schema(schemas.TOKENIZED_DIALOGUES)` rows."""
    raw = batch.to_pylist()
    encode = functools.partial(source.encode_each, encode_dialogues)
    cut = cut_at_turns(encode, [row["messages"] for row in raw], max_length)
    if only_last_answer:
        cut = [each if isinstance(each, Dropped) else _with_last_answer(each, max_length) for each in cut]
    rows = [_row(row, each, max_length) for row, each in zip(raw, cut, strict=True)]
    return pa.Table.from_pylist(rows, schema=mixed_schema(TOKENIZED_DIALOGUES))


def cut_at_turns(
    encode: Callable[[list[Messages]], list[EncodedDialogue | Dropped]],
    dialogues: Sequence[Messages],
    max_length: int | None,
) -> list[Cut | Dropped]:
    """The dialogues' token ids, each with as many of its first turns as fit into `max_length` tokens (None: all).

    What is left is encoded anew: some templates write the last answer of a dialogue in a way of its own.
    """
    whole = encode(list(dialogues))
    cut: list[Cut | Dropped] = [each if isinstance(each, Dropped) else Cut(each) for each in whole]
    if max_length is None:
        return cut
    fitting = {
        row: max(1, min(_answers_within(each, max_length), len(_answers(dialogues[row])) - 1))
        for row, each in enumerate(whole)
        if not isinstance(each, Dropped) and len(each.input_ids) > max_length
    }
    while fitting:
        shorter = {row: dialogues[row][: _answers(dialogues[row])[count - 1] + 1] for row, count in fitting.items()}
        for (row, messages), each in zip(shorter.items(), encode([*shorter.values()]), strict=True):
            if isinstance(each, EncodedDialogue) and len(each.input_ids) > max_length and fitting[row] > 1:
                fitting[row] -= 1
                continue
            del fitting[row]
            lost = len(dialogues[row]) - len(messages)
            cut[row] = each if isinstance(each, Dropped) else _shortened(each, whole[row], lost, max_length)
    return cut


def _answers_within(dialogue: EncodedDialogue, max_length: int) -> int:
    """How many answers end within the first tokens."""
    ends = np.flatnonzero(np.diff([*dialogue.assistant_mask, 0]) == -1)
    return int((ends < max_length).sum())


def _answers(messages: Messages) -> list[int]:
    """The numbers of the assistant's messages."""
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def _shortened(dialogue: EncodedDialogue, whole: EncodedDialogue | Dropped, turns: int, max_length: int) -> Cut:
    assert isinstance(whole, EncodedDialogue)
    kept = EncodedDialogue(dialogue.input_ids[:max_length], dialogue.assistant_mask[:max_length])
    is_within = len(kept.input_ids) < len(dialogue.input_ids)
    return Cut(kept, len(whole.input_ids) - len(kept.input_ids), turns, is_within)


def _with_last_answer(cut: Cut, max_length: int | None) -> Cut | Dropped:
    """The dialogue with its last answer marked alone; dropped if that is cut off."""
    if cut.turns:
        return Dropped(Reason.PROMPT_TOO_LONG, f"no last answer within {max_length} tokens")
    mask = cut.dialogue.assistant_mask
    if not any(mask):
        return cut
    end = len(mask) - mask[::-1].index(1)
    begin = end - [*mask[:end][::-1], 0].index(0)
    alone = [int(begin <= place < end) for place in range(len(mask))]
    return cut._replace(dialogue=cut.dialogue._replace(assistant_mask=alone))


def _row(raw: dict[str, Any], cut: Cut | Dropped, max_length: int | None) -> dict[str, Any]:
    if isinstance(cut, Dropped):
        return dropped_row(raw["source"], cut)
    if not any(cut.dialogue.assistant_mask):
        return dropped_row(raw["source"], Dropped(Reason.PROMPT_TOO_LONG, f"no answer within {max_length} tokens"))
    lost = {"truncated": cut.tokens, "turns_cut": cut.turns, "answer_cut": cut.is_within}
    return {"dialogue_id": raw["dialogue_id"], **cut.dialogue._asdict(), **lost, "source": raw["source"]}


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    counted = {name: kept[name].cast(pa.int32()).to_numpy() for name in ("truncated", "turns_cut", "answer_cut")}
    return lengths.tokens(kept, ("input_ids",)) | counted


def _with_cuts(report: Report) -> Report:
    """The report with a count of what was cut in place of its statistics."""
    stats = dict(report.stats)
    turns, answers = stats.pop("turns_cut", None), stats.pop("answer_cut", None)
    if not (turns and answers):
        return report
    within = int(answers["sum"])
    counts = {
        "dialogues cut at a turn": int(stats["truncated"]["nonzero"]) - within,
        "dialogues cut within their first answer": within,
        "turns cut off": int(turns["sum"]),
    }
    noted = {name: number for name, number in counts.items() if number}
    return dataclasses.replace(report, stats=stats, noted={**report.noted, **noted})
