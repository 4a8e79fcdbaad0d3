"""Parse a single rating, or say in a complaint why it is not one. Ratings are never guessed, rounded or clamped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from zephyr_ray.judging.rubrics import Scale

_EXCERPT = 40
_LARGE = 10**9  # replaces larger numbers in a complaint, because an integer can be too long to print


class Unreadable(Exception):  # noqa: N818 (the verdict on a reply, not an error of the program)
    """A reply without unambiguous ratings; `complaint` says why, in words for the judge."""

    def __init__(self, complaint: str):
        super().__init__(complaint)
        self.complaint = complaint


class Rating(NamedTuple):
    """A judge's rating of one completion. `rating` is None if the judge said that the criterion does not apply."""

    rating: float | None
    rationale: str | None


_NOT_APPLICABLE = re.compile(
    r"(?:n\s?/\s?a|n\.a|na|none|null|not (?:applicable|rated))(?=\s*(?:$|[.,;:()\[\]\"'<>\n–—-]))", re.IGNORECASE
)
_NUMBER = re.compile(r"(?P<value>[-+−]?[0-9]+(?:\.[0-9]+)?)(?:\s*(?:/|out\s+of|of)\s*(?P<top>[0-9]+(?:\.[0-9]+)?))?")
_RANGE = re.compile(r"\s*(?:-|–|—|to|through)\s*(?P<end>[0-9]+)")
# What shows that a number is not the rating: "4th", "80%", "4½", "1 0", "4,5", "4 or 5", "1: 4", "3/4/5".
_GOES_ON = re.compile(r"\w|%|[.'’^]\w|\s*(?:[,;:/|&~+–—-]|or\b|and\b|to\b)?\s*[0-9]")


def read_text(text: str, scale: Scale) -> list[float | None]:
    """The rating that a text begins with ("4", "4/5", "[[4]]", "N/A"), in a list that is empty if there is none.

    The scale itself ("1 to 10", "1-10") is an echo of the question, not a rating.

    Raises:
        Unreadable: It begins with a number that is not on the scale, or that may be part of something else.
    """
    opened = len(text) - len(text.lstrip(" \t\"'[(<"))
    brackets, text = text[:opened].count("["), text[opened:]
    if _NOT_APPLICABLE.match(text):
        return [None]
    number = _NUMBER.match(text)
    if number is None:
        return []
    span = _RANGE.match(text, number.end())
    if span and (number["value"], span["end"]) == (str(scale.low), str(scale.high)):
        return []
    if _GOES_ON.match(text, number.end()):
        raise Unreadable(f"{excerpt(text)} is not one clear rating")
    if brackets and not text[number.end() :].lstrip().startswith("]" * brackets):
        raise Unreadable(f"{excerpt(text)} may be cut off: its bracket is not closed")
    if number["top"] is not None and float(number["top"]) != scale.high:
        raise Unreadable(f"{excerpt(number[0])} is not on the scale from {scale.low} to {scale.high}")
    return [on_scale(float(number["value"].replace("−", "-")), scale)]


def read_value(value: Any, scale: Scale) -> float | None:
    """A JSON value as a rating.

    Raises:
        Unreadable: It is not a rating on the scale.
    """
    if value is None:
        return None
    if isinstance(value, str):
        found = read_text(value.replace("*", "").strip(), scale)
        if found:
            return found[0]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return on_scale(min(max(value, -_LARGE), _LARGE), scale)
    raise Unreadable(f"{excerpt(str(value))} is not a rating")


def on_scale(number: float, scale: Scale) -> float:
    """A number as a rating.

    Raises:
        Unreadable: It is not a whole number of the scale.
    """
    if not scale.low <= number <= scale.high:  # true of nan as well
        raise Unreadable(f"the rating {number:.6g} is not from {scale.low} to {scale.high}")
    if number != int(number):
        raise Unreadable(f"the rating {number:.6g} is not a whole number")
    return float(number)


def only(ratings: Iterable[float | None], what: str) -> float | None:
    """The one rating that all of them equal.

    Raises:
        Unreadable: There is no rating, or there are two different ones.
    """
    different = list(dict.fromkeys(ratings))
    if not different:
        raise Unreadable(f"{what} has no rating")
    if len(different) > 1:
        first, second = ("none" if each is None else f"{each:g}" for each in different[:2])
        raise Unreadable(f"{what} has two different ratings, {first} and {second}")
    return different[0]


def excerpt(text: str) -> str:
    """The start of a text on one line, in quotes."""
    line = " ".join(text[: 2 * _EXCERPT].split())
    return f'"{line[:_EXCERPT]}{"..." if len(line) > _EXCERPT else ""}"'
