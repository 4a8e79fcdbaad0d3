"""Read a server's whole reply to a chat or completion request (status 200), whatever it contains.

Servers omit fields, and fill them with values of other types. What is read here always fits a row
(`schemas.COMPLETION`) and a record of the ledger. The fields are those of OpenAI's chat completion object and of its
completion object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zephyr_ray.schemas import storable

_LARGEST = 2**31  # counts are int32 in rows, and no model has that many positions
_DIGITS = len(str(_LARGEST))


@dataclass(frozen=True)
class Reply:
    """A server's reply to one request."""

    content: str
    finish_reason: str | None
    tokens: int | None
    """Tokens of the completion; None if the server does not report them."""
    prompt_tokens: int | None
    refusal: str | None = None
    """Why there is no completion although the reply is whole and may be billed; None if there is one."""


class NoCompletion(Exception):  # noqa: N818 (what a reply is, not an error of the program)
    """A reply that is no completion, and that cannot have been billed."""


def parse_json(body: bytes) -> Any:
    """The JSON value of a reply's body; bytes that are not UTF-8 become replacement characters.

    Raises:
        ValueError: It is not JSON.
        NoCompletion: It is nested deeper than any reply.
    """
    try:
        return json.loads(body.decode("utf-8-sig", "replace"), parse_int=_parse_int)
    except RecursionError:
        raise NoCompletion("the reply is nested too deep") from None


def read_reply(body: Any, *, is_text: bool = False) -> Reply:
    """What a reply says: the content of its first choice, and its usage.

    A choice with a message is a completion, with empty content if the content is null (a model that spent all of its
    tokens on thinking). Without content, a refusal or a content filter is a `Reply.refusal`; so are content that is not
    text, and a reply that counts tokens without any completion. A count that is no integer from 0 to 2^31 - 1 is None.

    Args:
        body: A JSON value of any type.
        is_text: Whether it replies to a completion request: a choice's text is then the content of its message.

    Raises:
        NoCompletion: There is no choice with a message, and no tokens are counted.
    """
    usage = _fields(_fields(body).get("usage"))
    tokens, prompt_tokens = count(usage.get("completion_tokens")), count(usage.get("prompt_tokens"))
    choices = _fields(body).get("choices")
    if not isinstance(choices, list) or not choices:
        return _without_message("the reply has no choices", usage, None)
    finish_reason = text(_fields(choices[0]).get("finish_reason"))
    message = _message(choices[0], is_text)
    if not isinstance(message, dict):
        return _without_message("the reply's choice has no message", usage, finish_reason)
    refusal = _refusal(message, finish_reason)
    return Reply(text(message.get("content")) or "", finish_reason, tokens, prompt_tokens, refusal)


def _message(choice: Any, is_text: bool) -> Any:
    """The message of a choice; None, or any other value, if it has none."""
    fields = _fields(choice)
    if not is_text:
        return fields.get("message")
    return {"content": fields["text"]} if "text" in fields else None


def count(value: Any) -> int | None:
    """A count of tokens, or None if the value is none: not an integer, negative, or 2^31 and more."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST
    return value if is_count else None


def text(value: Any) -> str | None:
    """A text that can be stored, or None if the value is not text."""
    return storable(value) if isinstance(value, str) else None


def _without_message(reason: str, usage: Mapping[str, Any], finish_reason: str | None) -> Reply:
    """A reply without any completion: billed if it reports tokens, even in a form that cannot be read."""
    counts = [usage.get("completion_tokens"), usage.get("prompt_tokens")]
    if all(each is None or each == 0 for each in counts):
        raise NoCompletion(reason)
    tokens, prompt_tokens = map(count, counts)
    return Reply("", finish_reason, tokens, prompt_tokens, refusal=f"{reason}, but its usage counts tokens")


def _refusal(message: Mapping[str, Any], finish_reason: str | None) -> str | None:
    """Why a message has no content, unless that is empty."""
    content, refusal = message.get("content"), text(message.get("refusal"))
    if isinstance(content, str) and content:
        return None
    if refusal and refusal.strip():
        return f"the model refused: {refusal}"
    if finish_reason == "content_filter":
        return "a content filter took the completion away"
    return None if content is None or content == "" else "the completion is not text"


def _fields(value: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one in place of any other value."""
    return value if isinstance(value, dict) else {}


def _parse_int(digits: str) -> int | None:
    """Python refuses to read integers of thousands of digits; one beyond every count is None."""
    return int(digits) if len(digits) <= _DIGITS + 1 else None
