"""Convert one raw row (a dict) of a known layout into preference pairs, a dialogue or a prompt, or drop it.

A layout is recognized by its keys and their types, never guessed. docs/data.md lists the layouts:

    TRL implicit            chosen, rejected: message lists that differ in the last message
    TRL explicit            prompt, chosen, rejected: message lists, or plain strings
    ultrafeedback_binarized prompt, chosen, rejected, score_chosen, score_rejected (or in metadata)
    UltraFeedback           instruction (prompt, messages), completions: a list of {model, response, a score};
                            binarize.py makes the pairs
    hh-rlhf                 chosen, rejected: "\\n\\nHuman: ... \\n\\nAssistant: ..."
    ShareGPT                conversations: {from, value}; chosen, rejected: {from, value}
    Alpaca                  instruction, input; chosen, rejected, or output: a list of two
    PandaLM                 instruction, input, response1, response2, annotator1 ...

    dialogues               messages | conversations | conversation: a list of messages
                            UltraChat: data: a list of texts, the user's first
                            Self-Instruct: instruction, instances: [{input, output}, ...] (the first one)
                            instruction, input, output | a question and its answer (`_QUESTION_AND_ANSWER`)
    prompts                 messages | conversations | instruction, input | prompt | question | turns (the first)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from zephyr_ray.data import binarize
from zephyr_ray.data.binarize import Rule
from zephyr_ray.data.formats.messages import (
    Message,
    Row,
    as_answer,
    as_messages,
    as_name,
    as_number,
    as_prompt,
    as_text,
    as_transcript,
    assistant,
    check_text,
    checked_prompt,
    is_list_of,
    is_transcript,
    only_answer,
    roles_of,
    same_text,
    split_shared,
    start_of,
)
from zephyr_ray.data.preference_counts import AnswerCounts
from zephyr_ray.data.shared_ratings import exact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import Dropped, Reason


class Pair(NamedTuple):
    """Two completions of one prompt, before the checks of every pair."""

    prompt: list[Message]
    chosen: str
    rejected: str
    score_chosen: float | None = None
    score_rejected: float | None = None
    chosen_model: str | None = None
    rejected_model: str | None = None
    chosen_cut: bool = False
    """Whether it ends at the maximum of tokens."""
    rejected_cut: bool = False


CheckPrompt = Callable[[Sequence[Message]], None]
"""Raises `Dropped` for a prompt that may not be trained on."""


def preferences(
    raw: Row,
    rule: Rule = Rule(),  # noqa: B008 (frozen)
    *,
    counts: AnswerCounts | None = None,
    check_prompt: CheckPrompt | None = None,
) -> list[dict[str, Any] | Dropped]:
    """The pairs of a raw row in any preference layout, with the columns of `schemas.PREFERENCES` except `source`.

    It is one pair, or with the rule `every_pair` as many as the row's scores allow, with a `Dropped` in place of each
    unusable one.

    Args:
        raw: The row as read.
        rule: How to make pairs of scored completions; a row gives the same pairs in any partition.
        counts: Counts the row's completions, even if they make no pair.
        check_prompt: Refuses prompts.

    Raises:
        Dropped: The row fits no layout or is not a usable pair.
    """
    if "chosen" in raw and "rejected" in raw and (raw["chosen"] is None) != (raw["rejected"] is None):
        raise Dropped(Reason.UNPAIRED, "no rejected answer" if raw["rejected"] is None else "no chosen answer")
    row = strip_nulls(dict(raw))
    if _has_completions(row):
        pairs = _from_completions(row, rule, counts, check_prompt)
        return (
            [_to_columns(pairs[0], rule)] if len(pairs) == 1 else [_to_columns_or_dropped(pair, rule) for pair in pairs]
        )
    pair = _find_pair(row)
    if check_prompt:
        check_prompt(pair.prompt)
    return [_to_columns(pair, rule)]


def preference(
    raw: Row, *, seed: int = 0, rejected: Literal["random_lower", "lowest"] = "random_lower"
) -> dict[str, Any]:
    """The pair of a raw row, by a rule that gives a single pair; see `preferences`.

    Raises:
        Dropped: The row fits no layout or is not a usable pair.
    """
    (row,) = preferences(raw, Rule(seed=seed, rejected=rejected))
    assert isinstance(row, dict)
    return row


def _to_columns_or_dropped(pair: Pair, rule: Rule) -> dict[str, Any] | Dropped:
    try:
        return _to_columns(pair, rule)
    except Dropped as dropped:
        return dropped


def _to_columns(pair: Pair, rule: Rule) -> dict[str, Any]:
    prompt = checked_prompt(pair.prompt)
    check_text(pair.chosen)
    check_text(pair.rejected)
    if same_text(pair.chosen, pair.rejected):
        raise Dropped(Reason.IDENTICAL_PAIR, pair.chosen)
    if pair.score_chosen is not None and pair.score_rejected is not None:
        _check_margin(pair.score_chosen, pair.score_rejected, rule.margin)
    chosen, lost = assistant(pair.chosen), assistant(pair.rejected)
    columns = {**pair._asdict(), "prompt": prompt, "chosen": chosen, "rejected": lost}
    return {"pair_id": content_id(prompt, chosen, lost), **columns}


def _check_margin(chosen: float, rejected: float, margin: float) -> None:
    """Refuses ties. Which side scores higher is not checked: labels may have been flipped on purpose."""
    lead = abs(exact(chosen) - exact(rejected))
    if not lead:
        raise Dropped(Reason.TIE, f"both answers score {chosen:g}")
    if lead <= exact(margin):
        raise Dropped(Reason.TIE, f"scores {chosen:g} and {rejected:g} differ by no more than {margin:g}")


def dialogue(raw: Row) -> dict[str, Any]:
    """The dialogue of a raw row in any dialogue layout, with the columns of `schemas.DIALOGUES` except `source`.

    Raises:
        Dropped: The row fits no layout or is not a usable dialogue.
    """
    return checked_dialogue(dialogue_messages(raw))


def dialogue_messages(raw: Row) -> list[Message]:
    """The messages of a raw row in any dialogue layout, whatever their roles and texts are.

    Raises:
        Dropped: The row fits no layout.
    """
    return _find_dialogue(strip_nulls(dict(raw)))


def checked_dialogue(messages: Sequence[Message]) -> dict[str, Any]:
    """The columns of `schemas.DIALOGUES` except `source`.

    Raises:
        Dropped: The messages are no usable dialogue.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise Dropped(Reason.WRONG_ROLES, roles_of(messages))
    checked = [*checked_prompt(messages[:-1]), messages[-1]]
    check_text(checked[-1]["content"])
    return {"dialogue_id": content_id(checked), "messages": checked}


def prompt(raw: Row) -> dict[str, Any]:
    """The prompt of a raw row, with the columns of `schemas.PROMPTS` except `source`.

    A dialogue is cut before its last assistant message.

    Raises:
        Dropped: The row fits no layout or is not a usable prompt.
    """
    messages = _find_prompt(strip_nulls(dict(raw)))
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    messages = checked_prompt(messages)
    return {"prompt_id": content_id(messages), "messages": messages}


def _find_prompt(row: Row) -> list[Message]:
    if "messages" in row:
        return as_messages(row["messages"])
    if "conversations" in row:
        return _sharegpt_prompt(row)
    if "instruction" in row:
        first = row["instances"][0] if is_list_of(row.get("instances"), Mapping) else {}
        return _alpaca_prompt({**first, **row})
    for key in ("prompt", "question"):
        if key in row:
            return as_prompt(row[key])
    if is_list_of(row.get("turns"), str):
        return [{"role": "user", "content": row["turns"][0]}]
    _raise_unknown_layout(row)


# --- preference layouts


def _has_completions(row: Row) -> bool:
    completions = row.get("completions")
    return is_list_of(completions, Mapping) or completions == []


def _find_pair(row: Row) -> Pair:
    if {"instruction", "response1", "response2", "annotator1"} <= row.keys():
        return _from_pandalm(row)
    if "chosen" in row and "rejected" in row:
        return _with_scores(_from_chosen_rejected(row), row)
    output = row.get("output")
    if "instruction" in row and isinstance(output, list) and len(output) == 2:
        return Pair(_alpaca_prompt(row), as_text(output[0]), as_text(output[1]))
    _raise_unknown_layout(row)


def _from_chosen_rejected(row: Row) -> Pair:
    chosen, rejected = row["chosen"], row["rejected"]
    if "conversations" in row:
        return Pair(_sharegpt_prompt(row), as_answer(chosen), as_answer(rejected))
    if "instruction" in row:
        return Pair(_alpaca_prompt(row), as_answer(chosen), as_answer(rejected))
    if is_list_of(chosen, Mapping) and is_list_of(rejected, Mapping):
        return _from_message_lists(row.get("prompt"), as_messages(chosen), as_messages(rejected))
    if "prompt" in row:
        return Pair(as_prompt(row["prompt"]), as_answer(chosen), as_answer(rejected))
    if is_transcript(chosen) and is_transcript(rejected):
        return Pair(*split_shared(as_transcript(chosen), as_transcript(rejected)))
    _raise_unknown_layout(row)


def _from_message_lists(prompt: Any, chosen: list[Message], rejected: list[Message]) -> Pair:
    if prompt is not None and chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return Pair(as_prompt(prompt), only_answer(chosen), only_answer(rejected))
    pair = Pair(*split_shared(chosen, rejected))
    if prompt is None:
        return pair
    stated = as_prompt(prompt)
    if not (pair.prompt == stated if isinstance(prompt, list) else _contains_message(pair.prompt, stated[-1])):
        raise Dropped(Reason.NO_SHARED_PROMPT, f"the prompt is not that of the conversations: {stated[-1]['content']}")
    return pair


def _contains_message(messages: Sequence[Message], wanted: Message) -> bool:
    said = [message["content"].strip() for message in messages if message["role"] == wanted["role"]]
    return wanted["content"].strip() in said


def _from_pandalm(row: Row) -> Pair:
    prompt = _alpaca_prompt(row)
    first, second = as_text(row["response1"]), as_text(row["response2"])
    votes = Counter(as_number(value) for key, value in row.items() if re.fullmatch(r"annotator\d+", key))
    total = sum(votes.values())
    if votes[1] * 2 > total:
        return Pair(prompt, first, second)
    if votes[2] * 2 > total:
        return Pair(prompt, second, first)
    raise Dropped(Reason.TIE, f"votes {dict(sorted(votes.items(), key=str))}")


def _with_scores(pair: Pair, row: Row) -> Pair:
    metadata = row.get("metadata")
    known = {**metadata, **row} if isinstance(metadata, Mapping) else row
    return pair._replace(
        score_chosen=as_number(known.get("score_chosen")),
        score_rejected=as_number(known.get("score_rejected")),
        chosen_model=as_name(known.get("chosen_model")),
        rejected_model=as_name(known.get("rejected_model")),
        chosen_cut=known.get("chosen_cut") is True,
        rejected_cut=known.get("rejected_cut") is True,
    )


# --- UltraFeedback: several scored completions


def _from_completions(
    row: Row, rule: Rule, counts: AnswerCounts | None, check_prompt: CheckPrompt | None
) -> list[Pair]:
    prompt = _completions_prompt(row)
    if check_prompt:  # first, so that a prompt is refused whatever its completions are
        check_prompt(prompt)
    if not row["completions"]:
        raise Dropped(Reason.EMPTY, f"no completions: {start_of(row.get('error'))}")
    scored = binarize.score_completions(row["completions"], rule)
    if counts is not None:
        counts.see(scored)
    drawn = binarize.draw_pairs(scored, content_id(prompt), rule)
    if counts is not None:
        counts.drawn_among_best += drawn.among_best > 1
    return [
        Pair(
            prompt,
            *(best.text, lost.text),
            *(best.score, lost.score),
            *(best.model, lost.model),
            *(best.is_cut, lost.is_cut),
        )
        for best, lost in drawn.pairs
    ]


def _completions_prompt(row: Row) -> list[Message]:
    for key in ("messages", "prompt", "instruction"):
        if key in row:
            return as_prompt(row[key])
    _raise_unknown_layout(row)


# --- dialogue layouts


_QUESTION_AND_ANSWER = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "response"),  # OpenOrca, with `system_prompt`
    ("question", "answer"),
    ("user_query", "chatgpt_response"),  # HaluEval
)


def _find_dialogue(row: Row) -> list[Message]:
    for key in ("messages", "conversation"):
        if key in row:
            return as_messages(row[key])
    if "conversations" in row:
        return _sharegpt_prompt(row)
    if "instruction" in row and (answer := _output(row)) is not None:
        return [*_alpaca_prompt(row), *assistant(as_text(answer))]
    if is_list_of(row.get("instances"), Mapping) and "instruction" in row:
        first = {**row["instances"][0], "instruction": row["instruction"]}
        return [*_alpaca_prompt(first), *assistant(as_text(first.get("output")))]
    for question, answer in _QUESTION_AND_ANSWER:
        if question in row and answer in row:
            system = _system_messages(row)
            return [*system, *as_prompt(row[question]), *assistant(_completion_text(row[answer]))]
    if is_list_of(row.get("data"), str):
        return [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(row["data"])]
    _raise_unknown_layout(row)


def _output(row: Row) -> Any:
    """The answer to an instruction; Dolly and Magpie call it `response`."""
    return row.get("output", row.get("response"))


def _completion_text(value: Any) -> str:
    """The completion without the stop sequence that OpenAI's prompt-completion files append."""
    return as_answer(value).removesuffix("<|endoftext|>")


# --- shared by several layouts


def _sharegpt_prompt(row: Row) -> list[Message]:
    return [*_system_messages(row), *as_messages(row["conversations"])]


def _alpaca_prompt(row: Row) -> list[Message]:
    """The instruction and, after an empty line, its input (Dolly's `context`); LLaMA-Factory's `system` and `history`
    come before it."""
    earlier: list[Message] = []
    history = row.get("history", [])
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise Dropped(Reason.UNKNOWN_LAYOUT, f"history is not a list of [user, assistant]: {start_of(history)}")
    for turn in history:
        earlier += [{"role": "user", "content": as_text(turn[0])}, *assistant(as_text(turn[1]))]
    parts = [as_text(row["instruction"]), as_text(row.get("input", row.get("context", "")))]
    text = "\n\n".join(part for part in parts if part.strip())
    return [*_system_messages(row), *earlier, {"role": "user", "content": text}]


def _system_messages(row: Row) -> list[Message]:
    text = as_text(row.get("system", row.get("system_prompt", "")))
    return [{"role": "system", "content": text}] if text.strip() else []


def strip_nulls(value: Any) -> Any:
    """The value without None, which Arrow and Parquet put for missing keys of nested structs."""
    if isinstance(value, dict):  # not Mapping: that check is slow, and this runs for every value of every row
        return {key: strip_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [strip_nulls(item) for item in value]
    return value


def _raise_unknown_layout(row: Row) -> NoReturn:
    raise Dropped(Reason.UNKNOWN_LAYOUT, "keys " + ", ".join(f"{key} ({type(row[key]).__name__})" for key in row))
