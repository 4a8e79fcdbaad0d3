"""Reads a judge's reply: a rating or a verdict, in free text or under a JSON schema.

In free text the marks are those of MT-Bench: [[8]], or [[A]], [[B]] and [[C]] for a tie. A reply under a schema is
rewritten into such a text. What cannot be read is None, never a default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from zephyr_ray.evaluation.mt_bench import SCALE
from zephyr_ray.evaluation.recorded_files import number

Verdict = Literal["A", "B", "C"]
VERDICTS: tuple[Verdict, ...] = ("A", "B", "C")
Kind = Literal["rating", "verdict"]

_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_RATING_IN_SINGLE_BRACKETS = re.compile(r"\[(\d+\.?\d*)\]")
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
_REASON = "explanation"


class Read(NamedTuple):
    """What a reply says."""

    text: str
    """The judgment as a text with its mark."""
    rating: float | None = None
    verdict: Verdict | None = None


def read(reply: str, kind: Kind, *, structured: bool) -> Read:
    """Reads a reply; a rating or a verdict that is not there, or not on the scale, is None."""
    if structured:
        return _read_structured(reply, kind)
    return Read(reply, rating=rating_of(reply)) if kind == "rating" else Read(reply, verdict=verdict_of(reply))


def rating_of(text: str) -> float | None:
    """The first number in double brackets, else in single ones, as FastChat reads it; None if it is off the scale.

    FastChat counts numbers off the scale, which are mostly an index in code that the judge quotes.
    """
    found = _RATING.search(text) or _RATING_IN_SINGLE_BRACKETS.search(text)
    return _on_scale(float(found[1])) if found else None


def verdict_of(text: str) -> Verdict | None:
    """The one verdict of a text; None if it has none, or several different ones.

    FastChat takes A before B before C, wherever they stand.
    """
    found = set(_VERDICT.findall(text))
    return next((each for each in VERDICTS if found == {each}), None)


def response_format(kind: Kind) -> dict[str, Any]:
    """The schema of a reply as `response_format` of a chat request: the reason, and then what it leads to."""
    if kind == "rating":
        scale: dict[str, Any] = {"type": "integer", "enum": [*range(int(SCALE[0]), int(SCALE[1]) + 1)]}
    else:
        scale = {"type": "string", "enum": list(VERDICTS)}
    schema = {
        "type": "object",
        "properties": {_REASON: {"type": "string"}, kind: scale},
        "required": [_REASON, kind],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": kind, "strict": True, "schema": schema}}


def format_note(kind: Kind) -> str:
    """What is added to a prompt where the reply follows the schema."""
    value = "a whole number from 1 to 10" if kind == "rating" else "A, B or C"
    return (
        f'Give your reply as a JSON object in place of free text: {{"{_REASON}": your explanation, "{kind}": {value}}}.'
    )


def _read_structured(reply: str, kind: Kind) -> Read:
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        return Read(reply)
    if not isinstance(value, Mapping):
        return Read(reply)
    said = value.get(kind)
    reason = str(value.get(_REASON, "")).replace("[[", "[ [")  # the mark below is the only one
    if kind == "rating":
        rating = _on_scale(number(said))
        return Read(reply) if rating is None else Read(f"{reason}\n\nRating: [[{rating:g}]]".strip(), rating=rating)
    verdict = next((each for each in VERDICTS if said == each), None)
    return Read(reply) if verdict is None else Read(f"{reason}\n\nVerdict: [[{verdict}]]".strip(), verdict=verdict)


def _on_scale(value: float | None) -> float | None:
    return value if value is not None and SCALE[0] <= value <= SCALE[1] else None
