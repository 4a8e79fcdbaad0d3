"""Normalize messages of any layout to lists of {role, content} that every stage can rely on."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from zephyr_ray.schemas import Dropped, Reason

Message = dict[str, str]
Row = Mapping[str, Any]

_ROLE_OF = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}
_ROLES = frozenset({"system", "user", "assistant"})
_TURN = re.compile(r"\n\n(Human|Assistant):")


def as_prompt(value: Any) -> list[Message]:
    """The messages of a prompt given as messages or as text: a user's, or a transcript, which may end with an empty
    assistant turn."""
    if isinstance(value, str):
        if not is_transcript(value):
            return [{"role": "user", "content": value}]
        turns = as_transcript(value)
        return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns
    return as_messages(value)


def as_messages(value: Any) -> list[Message]:
    """The messages of a list of {role, content} or of ShareGPT's {from, value}; other keys are ignored."""
    if not is_list_of(value, Mapping):
        raise Dropped(Reason.NOT_TEXT, f"not a list of messages: {start_of(value)}")
    return [_message(item) for item in value]


def _message(item: Row) -> Message:
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    role = _ROLE_OF.get(role, role) if isinstance(role, str) else None
    if role not in _ROLES:
        raise Dropped(Reason.WRONG_ROLES, f"role {role!r}")
    return {"role": role, "content": as_text(content)}


def as_transcript(text: str) -> list[Message]:
    """The messages of a conversation in hh-rlhf's format, without whitespace around each turn."""
    parts = _TURN.split(text)
    roles = ["user" if name == "Human" else "assistant" for name in parts[1::2]]
    return [{"role": role, "content": content.strip()} for role, content in zip(roles, parts[2::2], strict=True)]


def is_transcript(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def as_answer(value: Any) -> str:
    """The text of a completion given as a string, a message or a list of one message."""
    if isinstance(value, str):
        return value
    return only_answer(as_messages([value] if isinstance(value, Mapping) else value))


def only_answer(messages: Sequence[Message]) -> str:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Dropped(Reason.WRONG_ROLES, f"an answer is one assistant message, not {roles_of(messages)}")
    return messages[0]["content"]


def split_shared(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], str, str]:
    """The shared messages of two conversations, and the two last completions; nothing else may differ."""
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise Dropped(Reason.WRONG_ROLES, f"{roles_of(chosen)} / {roles_of(rejected)}")
    if chosen[:-1] != rejected[:-1]:
        raise Dropped(Reason.NO_SHARED_PROMPT, f"{len(chosen)} and {len(rejected)} messages")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def assistant(content: str) -> list[Message]:
    return [{"role": "assistant", "content": content}]


def checked_prompt(messages: Sequence[Message]) -> list[Message]:
    """The prompt, if it is an optional system message and then turns that begin and end with a user's, none empty."""
    turns = list(messages)
    if turns and turns[0]["role"] == "system" and not turns[0]["content"].strip():
        turns = turns[1:]
    rest = turns[1:] if turns and turns[0]["role"] == "system" else turns
    if not rest or rest[0]["role"] != "user" or rest[-1]["role"] != "user":
        raise Dropped(Reason.WRONG_ROLES, roles_of(turns))
    for message in turns:
        check_text(message["content"])
    if any(message["role"] == "system" for message in rest):
        raise Dropped(Reason.WRONG_ROLES, roles_of(turns))
    return turns


def check_text(text: str) -> None:
    """Refuses text that is empty or cannot be encoded."""
    if not is_visible(text):
        raise Dropped(Reason.EMPTY, "a message without text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON can contain and UTF-8 cannot
        raise Dropped(Reason.NOT_TEXT, f"not Unicode text: {error.reason}") from None


def is_visible(text: str) -> bool:
    """Whether a text has a character that is neither space nor without a shape (as U+200B)."""
    return any(character.isprintable() and not character.isspace() for character in text)


def same_text(a: str, b: str) -> bool:
    """Whether two texts differ in nothing but how Unicode composes a letter, the ends of lines, and space around."""
    return a == b or _normalized(a) == _normalized(b)


def _normalized(text: str) -> list[str]:
    return [line.rstrip() for line in unicodedata.normalize("NFC", text).strip().splitlines()]


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Dropped(Reason.NOT_TEXT, f"{type(value).__name__}: {start_of(value)}")
    return value


def as_number(value: Any) -> float | None:
    """A score, or None if there is none ("N/A", null, NaN); a missing score never gets a default."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and "_" in value:  # Python's own way to write numbers
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_name(value: Any) -> str | None:
    """A model's name, or None if it is not text."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def roles_of(messages: Sequence[Message]) -> str:
    return " ".join(message["role"] for message in messages) or "no messages"


def start_of(value: Any) -> str:
    return json.dumps(value, default=str)[:100]
