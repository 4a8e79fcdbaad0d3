"""Reads a judge's raw reply -> a rating and a reason for each answer shown, or a complaint that says what is wrong.

First JSON, alone or inside other text, in the shapes that judges make of it; then text (`text.py`). A reply that
leaves a doubt is refused: the judge is asked again, and a null costs less than a wrong rating. A 10 that is read as a 1
makes the best answer the rejected one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from zephyr_ray.judging.parsing.rating import Reading, Unreadable, excerpt, only, read_value, storable
from zephyr_ray.judging.parsing.text import marked_ratings, read_prose
from zephyr_ray.judging.prompt import Question
from zephyr_ray.judging.rubrics import Scale, fill, scale_of

__all__ = ["Reading", "Unreadable", "complaint_message", "parse_reply"]

_RATING_KEYS = {"rating", "score", "overall_score", "overall_rating"}
_RATIONALE_KEYS = ("rationale", "critique", "reason", "reasoning", "explanation", "feedback")
_NUMBER_KEYS = ("answer", "text", "response", "id", "number", "index")
_LABEL = re.compile(r"(?:(?:answer|text|response|assistant|completion|output)[ _#-]*)?([0-9]{1,4})", re.IGNORECASE)
_THOUGHTS = re.compile(r"\A\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_DEPTH = 6  # levels of a reply's JSON in which ratings are looked for
_OPENS_JSON = re.compile(r"\{|\[(?=\s*\{)")


class _Entry(NamedTuple):
    """One rating in a reply: of which answer (from 1; null where it does not say), its value, and the reason."""

    number: int | None
    value: Any
    rationale: str | None


def parse_reply(text: str, question: Question) -> list[Reading]:
    """One reading for each answer, in the order in which they were shown.

    Raises:
        Unreadable: An answer has no rating, two different ones, or one that is no whole number of the scale; an answer
            is rated that was not shown; or what is a rating cannot be told.
    """
    scale, answers = scale_of(question.aspect), len(question.order)
    said = _THOUGHTS.sub("", storable(text)).strip()
    if not said:
        raise Unreadable("the reply is empty")
    entries, around = _json_entries(said)
    if not entries:
        return _read_without_json(said, answers, scale)
    readings = _readings(entries, answers, scale)
    _check_around(around, readings, scale)
    return readings


def complaint_message(complaint: str) -> str:
    """The user turn that asks again."""
    return fill("complaint", complaint=complaint.rstrip("."))


def _read_without_json(said: str, answers: int, scale: Scale) -> list[Reading]:
    if said.startswith(("{", "```json")):  # pieces of a broken object are not put together: a cut "10" ends in "1"
        raise Unreadable(f"{excerpt(said)} is not the JSON that was asked for")
    return read_prose(said, answers, scale)


def _json_entries(said: str) -> tuple[list[_Entry], str]:
    """All ratings in the reply's JSON values, and the text around these values."""
    entries, around, at = [], "", 0
    for start, end, value in _json_values(said):
        found = list(_entries(value))
        if found:
            entries += found
            around += said[at:start] + "\n"
            at = end
    return entries, around + said[at:]


def _json_values(text: str) -> Iterator[tuple[int, int, Any]]:
    """Every object, and every list of objects, that is not within another: (start, end, value)."""
    # strict=False: judges break lines inside strings.
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_without_contradiction)
    opening = _OPENS_JSON.search(text)
    while opening is not None:
        end = opening.end()
        try:
            value, end = decoder.raw_decode(text, opening.start())
            yield opening.start(), end, value
        except (ValueError, RecursionError):  # not JSON, a number too long for Python, or nested without end
            pass
        opening = _OPENS_JSON.search(text, end)


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python's own reading would take the last of two equal keys."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made and made[key] != value:
            raise Unreadable(f"the key {excerpt(key)} is there twice")
        made[key] = value
    return made


def _entries(value: Any, depth: int = 0) -> Iterator[_Entry]:
    """The ratings in a JSON value: {answer_1: ...}, {answers: [...]}, [...], {rating: ...} or {answer_1: 4}."""
    if isinstance(value, list) and depth < _DEPTH:
        yield from _list_entries(value, depth + 1)
    if not isinstance(value, dict) or depth == _DEPTH:
        return
    ratings = [each for key, each in value.items() if _plain(key) in _RATING_KEYS]
    if ratings:
        number, reason = _number_of(value), _reason_of(value)
        yield from (_Entry(number, rating, reason) for rating in ratings)
    for key, each in value.items():
        label = _LABEL.fullmatch(key.strip())
        if label is None:
            yield from _entries(each, depth + 1)
        elif isinstance(each, dict):
            yield from (_labelled(entry, int(label[1])) for entry in _entries(each, depth + 1))
        else:
            yield _Entry(int(label[1]), each, None)


def _labelled(entry: _Entry, number: int) -> _Entry:
    if entry.number not in (None, number):
        raise Unreadable(f"one rating is said to be of answer {number} and of answer {entry.number}")
    return entry._replace(number=number)


def _list_entries(values: list[Any], depth: int) -> Iterator[_Entry]:
    """Ratings in a list. Where none says which answer it is of, the first is of answer 1, and so on."""
    found = [list(_entries(value, depth)) for value in values]
    if any(entry.number is not None for entries in found for entry in entries):
        yield from (entry for entries in found for entry in entries)
        return
    for place, entries in enumerate(found, 1):
        yield from (entry._replace(number=place) for entry in entries)


def _number_of(verdict: Mapping[str, Any]) -> int | None:
    for key, value in verdict.items():
        if _plain(key) in _NUMBER_KEYS and isinstance(value, int | str) and not isinstance(value, bool):
            label = _LABEL.fullmatch(str(value).strip()) if len(str(value)) < 40 else None
            if label:
                return int(label[1])
    return None


def _reason_of(verdict: Mapping[str, Any]) -> str | None:
    plain = {_plain(key): value for key, value in verdict.items() if isinstance(value, str)}
    reason = next((plain[key] for key in _RATIONALE_KEYS if key in plain), "")
    return storable(reason).strip() or None


def _plain(key: str) -> str:
    return key.strip().lower().replace(" ", "_")


def _readings(entries: list[_Entry], answers: int, scale: Scale) -> list[Reading]:
    by_answer: dict[int, list[_Entry]] = {}
    for entry in entries:
        number = 1 if entry.number is None and answers == 1 else entry.number
        if number is None:
            raise Unreadable("a rating does not say which answer it is of")
        if not 1 <= number <= answers:
            raise Unreadable(f"there is no answer {number} among those shown")
        by_answer.setdefault(number, []).append(entry)
    return [_reading(by_answer.get(place, []), f"answer {place}", scale) for place in range(1, answers + 1)]


def _reading(entries: list[_Entry], what: str, scale: Scale) -> Reading:
    try:
        ratings = [read_value(entry.value, scale) for entry in entries]
    except Unreadable as unreadable:
        raise Unreadable(f"{what}: {unreadable.complaint}") from None
    return Reading(only(ratings, what), next((entry.rationale for entry in entries if entry.rationale), None))


def _check_around(around: str, readings: list[Reading], scale: Scale) -> None:
    """Refuses a reply whose text gives another rating than its JSON, which may be a quotation from an answer."""
    given = {reading.rating for reading in readings}
    if any(rating not in given for rating in marked_ratings(around, scale)):
        raise Unreadable("the text around the JSON gives another rating than the JSON")
