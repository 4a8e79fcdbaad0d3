"""Reads one raw row (a dict) -> a preference pair, a dialogue or a prompt as messages, or `Dropped` with a reason.

A layout is recognised by its keys and their types, never guessed. docs/data.md lists them:

    TRL implicit            chosen, rejected: message lists that part at the last message
    TRL explicit            prompt, chosen, rejected: message lists, or plain strings
    ultrafeedback_binarized prompt, chosen, rejected, score_chosen, score_rejected (or in metadata)
    UltraFeedback           instruction (prompt, messages), completions: a list of {model, response, a score}
    hh-rlhf                 chosen, rejected: "\\n\\nHuman: ... \\n\\nAssistant: ..."
    ShareGPT                conversations: {from, value}; chosen, rejected: {from, value}
    Alpaca                  instruction, input; chosen, rejected, or output: a list of two
    PandaLM                 instruction, input, response1, response2, annotator1 ...

    dialogues               messages | conversations | instruction, input, output | prompt, completion
    prompts                 messages | conversations | instruction, input | prompt | question | turns: the first one
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from zephyr_ray.artifacts import content_id
from zephyr_ray.data.messages import (
    Dropped,
    Message,
    Reason,
    Row,
    as_answer,
    as_messages,
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
    split_shared,
    start_of,
)

RejectedRule = Literal["random_lower", "lowest"]


class Pair(NamedTuple):
    """Two answers to one prompt, before the checks that every pair goes through."""

    prompt: list[Message]
    chosen: str
    rejected: str
    score_chosen: float | None = None
    score_rejected: float | None = None
    chosen_model: str | None = None
    rejected_model: str | None = None


def preference(raw: Row, *, seed: int = 0, rejected: RejectedRule = "random_lower") -> dict[str, Any]:
    """A raw row in any preference layout -> the columns of `schemas.PREFERENCES`, less `source`.

    Args:
        raw: The row as it was read.
        seed: With the prompt's id, draws among answers: the same row gives the same pair in any partition.
        rejected: Which answer below the best one is y_l, where a row has several scored ones.

    Raises:
        Dropped: The row fits no layout, or is no usable pair.
    """
    if "chosen" in raw and "rejected" in raw and (raw["chosen"] is None) != (raw["rejected"] is None):
        raise Dropped(Reason.UNPAIRED, "no rejected answer" if raw["rejected"] is None else "no chosen answer")
    pair = _find_pair(_strip_nulls(raw), seed, rejected)
    prompt = checked_prompt(pair.prompt)
    check_text(pair.chosen)
    check_text(pair.rejected)
    if pair.chosen == pair.rejected:
        raise Dropped(Reason.IDENTICAL_PAIR, pair.chosen)
    if pair.score_chosen is not None and pair.score_chosen == pair.score_rejected:
        raise Dropped(Reason.TIE, f"both answers score {pair.score_chosen:g}")
    chosen, lost = assistant(pair.chosen), assistant(pair.rejected)
    columns = {**pair._asdict(), "prompt": prompt, "chosen": chosen, "rejected": lost}
    return {"pair_id": content_id(prompt, chosen, lost), **columns}


def dialogue(raw: Row) -> dict[str, Any]:
    """A raw row in any dialogue layout -> the columns of `schemas.DIALOGUES`, less `source`.

    Raises:
        Dropped: The row fits no layout, or is no usable dialogue.
    """
    messages = _find_dialogue(_strip_nulls(raw))
    if not messages or messages[-1]["role"] != "assistant":
        raise Dropped(Reason.WRONG_ROLES, roles_of(messages))
    messages = [*checked_prompt(messages[:-1]), messages[-1]]
    check_text(messages[-1]["content"])
    return {"dialogue_id": content_id(messages), "messages": messages}


def prompt(raw: Row) -> dict[str, Any]:
    """A raw row with a prompt -> the columns of `schemas.PROMPTS`, less `source`.

    A dialogue is cut before its last answer.

    Raises:
        Dropped: The row fits no layout, or is no usable prompt.
    """
    messages = _find_prompt(_strip_nulls(raw))
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
        return _alpaca_prompt(row)
    for key in ("prompt", "question"):
        if key in row:
            return as_prompt(row[key])
    if is_list_of(row.get("turns"), str):
        return [{"role": "user", "content": row["turns"][0]}]
    _unknown(row)


# --- preference layouts


def _find_pair(row: Row, seed: int, rule: RejectedRule) -> Pair:
    if is_list_of(row.get("completions"), Mapping):
        return _from_completions(row, seed, rule)
    if {"instruction", "response1", "response2", "annotator1"} <= row.keys():
        return _from_pandalm(row)
    if "chosen" in row and "rejected" in row:
        return _with_scores(_from_chosen_rejected(row), row)
    output = row.get("output")
    if "instruction" in row and isinstance(output, list) and len(output) == 2:
        return Pair(_alpaca_prompt(row), as_text(output[0]), as_text(output[1]))
    _unknown(row)


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
    _unknown(row)


def _from_message_lists(prompt: Any, chosen: list[Message], rejected: list[Message]) -> Pair:
    if prompt is not None and chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return Pair(as_prompt(prompt), only_answer(chosen), only_answer(rejected))
    pair = Pair(*split_shared(chosen, rejected))
    if prompt is None:
        return pair
    stated = as_prompt(prompt)
    if not (pair.prompt == stated if isinstance(prompt, list) else _says(pair.prompt, stated[-1])):
        raise Dropped(Reason.NO_SHARED_PROMPT, f"the prompt is not that of the conversations: {stated[-1]['content']}")
    return pair


def _says(messages: Sequence[Message], wanted: Message) -> bool:
    said = [message["content"].strip() for message in messages if message["role"] == wanted["role"]]
    return wanted["content"].strip() in said


def _from_pandalm(row: Row) -> Pair:
    prompt = _alpaca_prompt(row)
    first, second = as_text(row["response1"]), as_text(row["response2"])
    votes = Counter(str(value) for key, value in row.items() if re.fullmatch(r"annotator\d+", key))
    total = sum(votes.values())
    if votes["1"] * 2 > total:
        return Pair(prompt, first, second)
    if votes["2"] * 2 > total:
        return Pair(prompt, second, first)
    raise Dropped(Reason.TIE, f"votes {dict(sorted(votes.items()))}")


def _with_scores(pair: Pair, row: Row) -> Pair:
    metadata = row.get("metadata")
    known = {**metadata, **row} if isinstance(metadata, Mapping) else row
    return pair._replace(
        score_chosen=_number(known.get("score_chosen")),
        score_rejected=_number(known.get("score_rejected")),
        chosen_model=_name(known.get("chosen_model")),
        rejected_model=_name(known.get("rejected_model")),
    )


# --- UltraFeedback: several scored answers


class _Answer(NamedTuple):
    text: str
    model: str | None
    score: float


def _from_completions(row: Row, seed: int, rule: RejectedRule) -> Pair:
    """The best answer against one that scores strictly lower (Zephyr: a random one).

    An answer without text or without a score neither wins nor loses. Draws are by a hash of the seed and the prompt.
    """
    prompt = _completions_prompt(row)
    answers = _scored_answers(row["completions"])
    prompt_id = content_id(prompt)
    top = max(answer.score for answer in answers)
    best = _draw([answer for answer in answers if answer.score == top], seed, prompt_id, "chosen")
    lower = [answer for answer in answers if answer.score < top]
    if not lower:
        raise Dropped(Reason.TIE, f"no answer scores below {top:g}")
    lower = [answer for answer in lower if answer.text != best.text]
    if not lower:
        raise Dropped(Reason.IDENTICAL_PAIR, best.text)
    if rule == "lowest":
        bottom = min(answer.score for answer in lower)
        lower = [answer for answer in lower if answer.score == bottom]
    lost = _draw(lower, seed, prompt_id, "rejected")
    return Pair(prompt, best.text, lost.text, best.score, lost.score, best.model, lost.model)


def _completions_prompt(row: Row) -> list[Message]:
    for key in ("messages", "prompt", "instruction"):
        if key in row:
            return as_prompt(row[key])
    _unknown(row)


def _scored_answers(completions: Sequence[Row]) -> list[_Answer]:
    if not any(isinstance(item.get(key), str) for item in completions for key in ("response", "content")):
        raise Dropped(Reason.NOT_TEXT, "no completion has a response")
    score = _score_in_use(completions)
    answers = []
    for item in completions:
        text, value = item.get("response", item.get("content")), score(item)
        if value is not None and isinstance(text, str) and text.strip():
            answers.append(_Answer(text, _name(item.get("model")), value))
    if not answers:
        raise Dropped(Reason.EMPTY, "no scored completion has text")
    return answers


def _score_in_use(completions: Sequence[Row]) -> Any:
    """The first kind of score that any answer of the row has: two kinds are never compared with each other."""
    for score in _SCORES:
        if any(score(item) is not None for item in completions):
            return score
    raise Dropped(Reason.UNSCORED, f"no score among {sorted({key for item in completions for key in item})}")


def _mean_rating(item: Row) -> float | None:
    annotations = item.get("annotations")
    if not isinstance(annotations, Mapping):
        return None
    aspects = [aspect for aspect in annotations.values() if isinstance(aspect, Mapping)]
    ratings = [_number(aspect.get("rating", aspect.get("Rating"))) for aspect in aspects]
    known = [rating for rating in ratings if rating is not None]
    return sum(known) / len(known) if known else None


def _correctness(item: Row) -> float | None:
    return float(item["is_correct"]) if isinstance(item.get("is_correct"), bool) else None


_SCORES = (
    lambda item: _number(item.get("overall_score")),
    lambda item: _number(item.get("fine-grained_score", item.get("fine_grained_score"))),
    _mean_rating,
    _correctness,
)


def _draw(answers: Sequence[_Answer], seed: int, prompt_id: str, what: str) -> _Answer:
    return answers[int(content_id(seed, prompt_id, what), 16) % len(answers)]


# --- dialogue layouts


def _find_dialogue(row: Row) -> list[Message]:
    if "messages" in row:
        return as_messages(row["messages"])
    if "conversations" in row:
        return _sharegpt_prompt(row)
    if "instruction" in row and "output" in row:
        return [*_alpaca_prompt(row), *assistant(as_text(row["output"]))]
    if "prompt" in row and "completion" in row:
        return [*as_prompt(row["prompt"]), *assistant(_completion(row["completion"]))]
    _unknown(row)


def _completion(value: Any) -> str:
    """OpenAI's prompt-completion files end each completion with a stop sequence: it is the file's, not the answer's."""
    return as_answer(value).removesuffix("<|endoftext|>")


# --- what several layouts share


def _sharegpt_prompt(row: Row) -> list[Message]:
    return [*_system(row), *as_messages(row["conversations"])]


def _alpaca_prompt(row: Row) -> list[Message]:
    """The instruction with its input after an empty line; LLaMA-Factory's `system` and `history` before it."""
    earlier: list[Message] = []
    history = row.get("history", [])
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise Dropped(Reason.UNKNOWN_LAYOUT, f"history is not a list of [user, assistant]: {start_of(history)}")
    for turn in history:
        earlier += [{"role": "user", "content": as_text(turn[0])}, *assistant(as_text(turn[1]))]
    parts = [as_text(row["instruction"]), as_text(row.get("input", ""))]
    text = "\n\n".join(part for part in parts if part.strip())
    return [*_system(row), *earlier, {"role": "user", "content": text}]


def _system(row: Row) -> list[Message]:
    text = as_text(row.get("system", ""))
    return [{"role": "system", "content": text}] if text.strip() else []


def _number(value: Any) -> float | None:
    """A score, or None where there is none ("N/A", null, NaN): a missing score is never a default one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _name(value: Any) -> str | None:
    """A model's name, or None where it is no text."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _strip_nulls(value: Any) -> Any:
    """Arrow and Parquet put None for the missing keys of nested structs."""
    if isinstance(value, Mapping):
        return {key: _strip_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_strip_nulls(item) for item in value]
    return value


def _unknown(row: Row) -> NoReturn:
    raise Dropped(Reason.UNKNOWN_LAYOUT, "keys " + ", ".join(f"{key} ({type(row[key]).__name__})" for key in row))
