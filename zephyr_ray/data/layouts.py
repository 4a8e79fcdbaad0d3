"""Reads one raw row (a dict) -> a preference pair or a dialogue as messages, or `Dropped` with a reason.

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
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple, NoReturn

from zephyr_ray.artifacts import content_id

Message = dict[str, str]
Row = Mapping[str, Any]
RejectedRule = Literal["random_lower", "lowest"]


class Reason(StrEnum):
    """Why a row was left out."""

    UNDECODABLE_LINE = "undecodable_line"
    """Not JSON, or not UTF-8."""
    UNKNOWN_LAYOUT = "unknown_layout"
    """The keys and types of no known layout."""
    NOT_TEXT = "not_text"
    """Something that should be text is not: a number, a list of images, half a surrogate pair."""
    EMPTY = "empty"
    """A message without a visible character, or nothing left of it as tokens."""
    WRONG_ROLES = "wrong_roles"
    """An unknown role, a system message that is not the first, or no user before the answer."""
    NO_SHARED_PROMPT = "no_shared_prompt"
    """The two conversations differ before their last answer."""
    IDENTICAL_PAIR = "identical_pair"
    """Chosen and rejected are the same text."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """A dialogue whose first answer begins after the last token that is kept."""
    TIE = "tie"
    """No answer scores strictly lower than the best one."""
    UNSCORED = "unscored"
    """A list of answers none of which has a score."""
    REPEATED = "repeated"
    """The same content as a row that is kept."""


class Dropped(Exception):  # noqa: N818 (what happens to a row, not an error of the program)
    """This row is left out."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


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
    pair = _find_pair(_strip_nulls(raw), seed, rejected)
    prompt = _checked_prompt(pair.prompt)
    _check_text(pair.chosen)
    _check_text(pair.rejected)
    if pair.chosen == pair.rejected:
        raise Dropped(Reason.IDENTICAL_PAIR, pair.chosen)
    if pair.score_chosen is not None and pair.score_chosen == pair.score_rejected:
        raise Dropped(Reason.TIE, f"both answers score {pair.score_chosen:g}")
    chosen, lost = _assistant(pair.chosen), _assistant(pair.rejected)
    columns = {**pair._asdict(), "prompt": prompt, "chosen": chosen, "rejected": lost}
    return {"pair_id": content_id(prompt, chosen, lost), **columns}


def dialogue(raw: Row) -> dict[str, Any]:
    """A raw row in any dialogue layout -> the columns of `schemas.DIALOGUES`, less `source`.

    Raises:
        Dropped: The row fits no layout, or is no usable dialogue.
    """
    messages = _find_dialogue(_strip_nulls(raw))
    if not messages or messages[-1]["role"] != "assistant":
        raise Dropped(Reason.WRONG_ROLES, _roles(messages))
    messages = [*_checked_prompt(messages[:-1]), messages[-1]]
    _check_text(messages[-1]["content"])
    return {"dialogue_id": content_id(messages), "messages": messages}


# --- preference layouts


def _find_pair(row: Row, seed: int, rule: RejectedRule) -> Pair:
    if _is_list_of(row.get("completions"), Mapping):
        return _from_completions(row, seed, rule)
    if {"instruction", "response1", "response2", "annotator1"} <= row.keys():
        return _from_pandalm(row)
    if "chosen" in row and "rejected" in row:
        return _with_scores(_from_chosen_rejected(row), row)
    output = row.get("output")
    if "instruction" in row and isinstance(output, list) and len(output) == 2:
        return Pair(_alpaca_prompt(row), _text(output[0]), _text(output[1]))
    _unknown(row)


def _from_chosen_rejected(row: Row) -> Pair:
    chosen, rejected = row["chosen"], row["rejected"]
    if "conversations" in row:
        return Pair(_sharegpt_prompt(row), _single_answer(chosen), _single_answer(rejected))
    if "instruction" in row:
        return Pair(_alpaca_prompt(row), _single_answer(chosen), _single_answer(rejected))
    if _is_list_of(chosen, Mapping) and _is_list_of(rejected, Mapping):
        return _from_message_lists(row.get("prompt"), _messages(chosen), _messages(rejected))
    if "prompt" in row:
        return Pair(_prompt(row["prompt"]), _single_answer(chosen), _single_answer(rejected))
    if _is_transcript(chosen) and _is_transcript(rejected):
        return Pair(*_split_shared(_transcript(chosen), _transcript(rejected)))
    _unknown(row)


def _from_message_lists(prompt: Any, chosen: list[Message], rejected: list[Message]) -> Pair:
    if prompt is not None and chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return Pair(_prompt(prompt), _only(chosen), _only(rejected))
    pair = Pair(*_split_shared(chosen, rejected))
    if prompt is None:
        return pair
    stated = _prompt(prompt)
    same = pair.prompt == stated if isinstance(prompt, list) else stated[-1] in pair.prompt
    if not same:
        raise Dropped(Reason.NO_SHARED_PROMPT, f"the prompt is not that of the conversations: {stated[-1]['content']}")
    return pair


def _from_pandalm(row: Row) -> Pair:
    prompt = _alpaca_prompt(row)
    first, second = _text(row["response1"]), _text(row["response2"])
    votes = Counter(value for key, value in row.items() if re.fullmatch(r"annotator\d+", key))
    total = sum(votes.values())
    if votes[1] * 2 > total:
        return Pair(prompt, first, second)
    if votes[2] * 2 > total:
        return Pair(prompt, second, first)
    raise Dropped(Reason.TIE, f"votes {dict(sorted(votes.items(), key=str))}")


def _with_scores(pair: Pair, row: Row) -> Pair:
    metadata = row.get("metadata")
    known = {**metadata, **row} if isinstance(metadata, Mapping) else row
    models = [known.get(name) for name in ("chosen_model", "rejected_model")]
    return pair._replace(
        score_chosen=_number(known.get("score_chosen")),
        score_rejected=_number(known.get("score_rejected")),
        chosen_model=models[0] if isinstance(models[0], str) else None,
        rejected_model=models[1] if isinstance(models[1], str) else None,
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
            return _prompt(row[key])
    _unknown(row)


def _scored_answers(completions: Sequence[Row]) -> list[_Answer]:
    if not any(isinstance(item.get(key), str) for item in completions for key in ("response", "content")):
        raise Dropped(Reason.NOT_TEXT, "no completion has a response")
    score = _score_in_use(completions)
    answers = []
    for item in completions:
        text, value = item.get("response", item.get("content")), score(item)
        if value is not None and isinstance(text, str) and text.strip():
            model = item.get("model")
            answers.append(_Answer(text, model if isinstance(model, str) else None, value))
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
        return _messages(row["messages"])
    if "conversations" in row:
        return _sharegpt_prompt(row)
    if "instruction" in row and "output" in row:
        return [*_alpaca_prompt(row), *_assistant(_text(row["output"]))]
    if "prompt" in row and "completion" in row:
        return [*_prompt(row["prompt"]), *_assistant(_completion(row["completion"]))]
    _unknown(row)


def _completion(value: Any) -> str:
    """OpenAI's prompt-completion files end each completion with a stop sequence: it is the file's, not the answer's."""
    return _single_answer(value).removesuffix("<|endoftext|>")


# --- what the layouts are made of

_ROLE_OF = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}
_ROLES = frozenset({"system", "user", "assistant"})
_TURN = re.compile(r"\n\n(Human|Assistant):")


def _prompt(value: Any) -> list[Message]:
    if isinstance(value, str):
        if not _is_transcript(value):
            return [{"role": "user", "content": value}]
        turns = _transcript(value)
        return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns
    return _messages(value)


def _messages(value: Any) -> list[Message]:
    """A list of {role, content} or of ShareGPT's {from, value}; other keys of a message are left out."""
    if not _is_list_of(value, Mapping):
        raise Dropped(Reason.NOT_TEXT, f"not a list of messages: {_start(value)}")
    return [_message(item) for item in value]


def _message(item: Row) -> Message:
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    role = _ROLE_OF.get(role, role) if isinstance(role, str) else role
    if role not in _ROLES:
        raise Dropped(Reason.WRONG_ROLES, f"role {role!r}")
    return {"role": role, "content": _text(content)}


def _sharegpt_prompt(row: Row) -> list[Message]:
    return [*_system(row), *_messages(row["conversations"])]


def _alpaca_prompt(row: Row) -> list[Message]:
    """The instruction with its input after an empty line; LLaMA-Factory's `system` and `history` before it."""
    earlier: list[Message] = []
    for turn in row.get("history", ()):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Dropped(Reason.UNKNOWN_LAYOUT, f"history is not a list of [user, assistant]: {_start(turn)}")
        earlier += [{"role": "user", "content": _text(turn[0])}, *_assistant(_text(turn[1]))]
    parts = [_text(row["instruction"]), _text(row.get("input", ""))]
    text = "\n\n".join(part for part in parts if part.strip())
    return [*_system(row), *earlier, {"role": "user", "content": text}]


def _system(row: Row) -> list[Message]:
    text = _text(row.get("system", ""))
    return [{"role": "system", "content": text}] if text.strip() else []


def _transcript(text: str) -> list[Message]:
    parts = _TURN.split(text)
    roles = ["user" if name == "Human" else "assistant" for name in parts[1::2]]
    return [{"role": role, "content": content.strip()} for role, content in zip(roles, parts[2::2], strict=True)]


def _is_transcript(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def _single_answer(value: Any) -> str:
    """An answer as a string, a message or a list of one message."""
    if isinstance(value, str):
        return value
    return _only(_messages([value] if isinstance(value, Mapping) else value))


def _only(messages: Sequence[Message]) -> str:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Dropped(Reason.WRONG_ROLES, f"an answer is one assistant message, not {_roles(messages)}")
    return messages[0]["content"]


def _split_shared(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], str, str]:
    """Two whole conversations -> what they share and the last answers, which is all they may differ in."""
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise Dropped(Reason.WRONG_ROLES, f"{_roles(chosen)} / {_roles(rejected)}")
    if chosen[:-1] != rejected[:-1]:
        raise Dropped(Reason.NO_SHARED_PROMPT, f"{len(chosen)} and {len(rejected)} messages")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _assistant(content: str) -> list[Message]:
    return [{"role": "assistant", "content": content}]


# --- checks


def _checked_prompt(messages: Sequence[Message]) -> list[Message]:
    """A prompt is an optional system message, then turns from a user's first to a user's last, none of them empty."""
    turns = list(messages)
    if turns and turns[0]["role"] == "system" and not turns[0]["content"].strip():
        turns = turns[1:]
    rest = turns[1:] if turns and turns[0]["role"] == "system" else turns
    if not rest or rest[0]["role"] != "user" or rest[-1]["role"] != "user":
        raise Dropped(Reason.WRONG_ROLES, _roles(turns))
    for message in turns:
        _check_text(message["content"])
    if any(message["role"] == "system" for message in rest):
        raise Dropped(Reason.WRONG_ROLES, _roles(turns))
    return turns


def _check_text(text: str) -> None:
    if not text.strip():
        raise Dropped(Reason.EMPTY, "a message without text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON can write and no file can hold
        raise Dropped(Reason.NOT_TEXT, f"not Unicode text: {error.reason}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Dropped(Reason.NOT_TEXT, f"{type(value).__name__}: {_start(value)}")
    return value


def _number(value: Any) -> float | None:
    """A score, or None where there is none ("N/A", null, NaN): a missing score is never a default one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _strip_nulls(value: Any) -> Any:
    """Arrow and Parquet put None for the missing keys of nested structs."""
    if isinstance(value, Mapping):
        return {key: _strip_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_strip_nulls(item) for item in value]
    return value


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _roles(messages: Sequence[Message]) -> str:
    return " ".join(message["role"] for message in messages) or "no messages"


def _start(value: Any) -> str:
    return json.dumps(value, default=str)[:100]


def _unknown(row: Row) -> NoReturn:
    raise Dropped(Reason.UNKNOWN_LAYOUT, "keys " + ", ".join(f"{key} ({type(row[key]).__name__})" for key in row))
