"""Parse a judge's raw reply into a rating for each completion shown, or a complaint that says what is wrong.

JSON comes first, alone or inside other text, in the shapes that judges make of it; then plain text (`text.py`). An
ambiguous reply is refused and the judge is asked again: a null costs less than a wrong rating. A 10 that is read as a 1
makes the best completion the rejected one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from zephyr_ray.judging.parsing.rating import Rating, Unreadable, excerpt, only, read_value
from zephyr_ray.judging.parsing.text import marked_ratings, read_prose
from zephyr_ray.judging.prompt import Question
from zephyr_ray.judging.rubrics import Scale, fill, scale_of
from zephyr_ray.schemas import storable

__all__ = ["Rating", "Unreadable", "complaint_message", "parse_reply"]

_RATING_KEYS = {"rating", "score", "overall_score", "overall_rating"}
_RATIONALE_KEYS = ("rationale", "critique", "reason", "reasoning", "explanation", "feedback")
_NUMBER_KEYS = ("answer", "text", "response", "id", "number", "index")
_LABEL = re.compile(r"(?:(?:answer|text|response|assistant|completion|output)[ _#-]*)?([0-9]{1,4})", re.IGNORECASE)
_THOUGHTS = re.compile(r"\A\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_DEPTH = 6  # levels of a reply's JSON in which ratings are looked for
_OPENS_JSON = re.compile(r"\{|\[(?=\s*\{)")


class _Entry(NamedTuple):
    """One rating in a reply: the number of its completion (from 1; None if not given), its value, and the reason."""

    number: int | None
    value: Any
    rationale: str | None


def parse_reply(text: str, question: Question) -> list[Rating]:
    """One rating for each completion, in the order in which they were shown.

    Raises:
        Unreadable: A completion has no rating, two different ones, or one that is not a whole number of the scale; a
            rating is of a completion that was not shown; or it is unclear what is a rating.
    """
    scale, completions = scale_of(question.aspect), len(question.order)
    said = _THOUGHTS.sub("", storable(text)).strip()
    if not said:
        raise Unreadable("the reply is empty")
    entries, around = _json_entries(said)
    if not entries:
        return _read_without_json(said, completions, scale)
    ratings = _ratings(entries, completions, scale)
    _check_around(around, ratings, scale)
    return ratings


def complaint_message(complaint: str) -> str:
    """The user message that asks again."""
    return fill("complaint", complaint=complaint.rstrip("."))


def _read_without_json(said: str, completions: int, scale: Scale) -> list[Rating]:
    if said.startswith(("{", "```json")):  # a broken object is not repaired: a cut "10" ends in "1"
        raise Unreadable(f"{excerpt(said)} is not the JSON that was asked for")
    return read_prose(said, completions, scale)


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
    """(start, end, value) of every outermost object and list of objects."""
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
    """A JSON object, refused if a key has two values; Python's own parser would take the last one."""
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
    ratings = [each for key, each in value.items() if _normalized(key) in _RATING_KEYS]
    if ratings:
        number, reason = _number_of(value), _reason_of(value)
        yield from (_Entry(number, rating, reason) for rating in ratings)
    for key, each in value.items():
        label = _LABEL.fullmatch(key.strip())
        if label is None:
            yield from _entries(each, depth + 1)
        elif isinstance(each, dict):
            yield from (_with_number(entry, int(label[1])) for entry in _entries(each, depth + 1))
        else:
            yield _Entry(int(label[1]), each, None)


def _with_number(entry: _Entry, number: int) -> _Entry:
    if entry.number not in (None, number):
        raise Unreadable(f"one rating is said to be of answer {number} and of answer {entry.number}")
    return entry._replace(number=number)


def _list_entries(values: list[Any], depth: int) -> Iterator[_Entry]:
    """Ratings in a list. If none has a number, they are those of completions 1, 2 and so on."""
    found = [list(_entries(value, depth)) for value in values]
    if any(entry.number is not None for entries in found for entry in entries):
        yield from (entry for entries in found for entry in entries)
        return
    for place, entries in enumerate(found, 1):
        yield from (entry._replace(number=place) for entry in entries)


def _number_of(verdict: Mapping[str, Any]) -> int | None:
    for key, value in verdict.items():
        if _normalized(key) in _NUMBER_KEYS and isinstance(value, int | str) and not isinstance(value, bool):
            label = _LABEL.fullmatch(str(value).strip()) if len(str(value)) < 40 else None
            if label:
                return int(label[1])
    return None


def _reason_of(verdict: Mapping[str, Any]) -> str | None:
    plain = {_normalized(key): value for key, value in verdict.items() if isinstance(value, str)}
    reason = next((plain[key] for key in _RATIONALE_KEYS if key in plain), "")
    return storable(reason).strip() or None


def _normalized(key: str) -> str:
    return key.strip().lower().replace(" ", "_")


def _ratings(entries: list[_Entry], completions: int, scale: Scale) -> list[Rating]:
    by_completion: dict[int, list[_Entry]] = {}
    for entry in entries:
        number = 1 if entry.number is None and completions == 1 else entry.number
        if number is None:
            raise Unreadable("a rating does not say which answer it is of")
        if not 1 <= number <= completions:
            raise Unreadable(f"there is no answer {number} among those shown")
        by_completion.setdefault(number, []).append(entry)
    return [_rating(by_completion.get(place, []), f"answer {place}", scale) for place in range(1, completions + 1)]


def _rating(entries: list[_Entry], what: str, scale: Scale) -> Rating:
    try:
        ratings = [read_value(entry.value, scale) for entry in entries]
    except Unreadable as unreadable:
        raise Unreadable(f"{what}: {unreadable.complaint}") from None
    return Rating(only(ratings, what), next((entry.rationale for entry in entries if entry.rationale), None))


def _check_around(around: str, ratings: list[Rating], scale: Scale) -> None:
    """Refuses a reply whose text gives another rating than its JSON, which may be quoted from a completion."""
    given = {rating.rating for rating in ratings}
    if any(rating not in given for rating in marked_ratings(around, scale)):
        raise Unreadable("the text around the JSON gives another rating than the JSON")
