"""Reads a reply without JSON -> what it says of each answer. A rating counts only where it is marked as one.

Marks are a line or sentence that begins with "Rating:" or "Score:", [[7]], "4/5" on a line of its own, or a number that
is all that is said of an answer. A rating that a sentence merely mentions or a ">" quotes is none: the judge is asked
again instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from zephyr_ray.judging.parsing.rating import Reading, Unreadable, excerpt, only, read_text
from zephyr_ray.judging.rubrics import Scale

_MARKUP = re.compile(r"\*+|__+|`+|[\u200b-\u200d\u2060\ufeff]|^[ \t]*#+[ \t]*", re.MULTILINE)  # "**1**0" is 10
_FENCED = re.compile(r"\s*```\w*\n(?P<inside>(?:(?!```).)*)\n```\s*", re.DOTALL)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_NAMES = r"(?:answer|text|response|assistant|completion|output)"
_HEADING = re.compile(
    rf"^[ \t\-•\[(]*(?:(?:output|rating|score|feedback)[ \t]+(?:for|of)[ \t]+)?{_NAMES}[ \t]{{0,3}}#?[ \t]{{0,3}}"
    r"(?P<number>[0-9]+)"
    r"(?=[ \t]*(?:$|[:)\]–—-]|(?:rating|score)\b))[ \t)\]]*[:–—-]?[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_SCALE = r"(?:[ \t]*\([^()\n]{0,40}\)|[ \t]+(?:from|on a scale (?:of|from))[ \t]+[0-9]+[ \t]*(?:to|-|–)[ \t]*[0-9]+)?"
_RATING = re.compile(
    r"(?:^[ \t\-•|]*|[.;:!?,|(][ \t]*)"
    r"(?:(?:my|the|final|overall|total|quality|instruction[ _]following|honesty|truthfulness|helpfulness)[ \t]+)*"
    rf"(?:rating|score){_SCALE}[ \t]*:(?P<gap>\s*)",
    re.IGNORECASE | re.MULTILINE,
)
_DOUBLE_BRACKETS = re.compile(r"\[\[([^\[\]\n]{1,40})\]\]")
_FRACTION_LINE = re.compile(r"^[ \t\-•(\[]*([0-9]+(?:\.[0-9]+)?[ \t]*/[ \t]*[0-9]+)[ \t)\].]*$", re.MULTILINE)
_ALONE = re.compile(r"[\s\"'\[(]*([-+]?[0-9]+(?:\.[0-9]+)?(?:[ \t]*/[ \t]*[0-9]+)?|n/a)[\s\"'\]).]*", re.IGNORECASE)
_RATIONALE = re.compile(
    r"^[ \t\-•]*(?:rationale|critique|reason(?:ing)?|explanation|feedback)[ \t]*:[ \t]*", re.I | re.M
)


def read_prose(text: str, answers: int, scale: Scale) -> list[Reading]:
    """One reading for each answer shown. Several answers need a heading each ("#### Output for Text 1", "Answer 2:").

    Raises:
        Unreadable: An answer has no rating, two different ones, or one that is none on the scale.
    """
    blocks = _blocks(_plain(text), answers)
    return [_reading(blocks.get(place, []), f"answer {place}", scale) for place in range(1, answers + 1)]


def marked_ratings(text: str, scale: Scale) -> list[float | None]:
    """Every rating that a text marks as one.

    Raises:
        Unreadable: It marks a number as a rating that is none on the scale.
    """
    return list(_marked(_plain(text), scale))


def _plain(text: str) -> str:
    """The text without markup and code: a judge that corrects a program writes `score: 0` and means no rating."""
    fenced = _FENCED.fullmatch(text)
    return _MARKUP.sub("", fenced["inside"] if fenced else _CODE.sub("", text))


def _blocks(text: str, answers: int) -> dict[int, list[str]]:
    """The blocks about each answer, by its number from 1. What comes before the first heading is about none."""
    headings = list(_HEADING.finditer(text))
    blocks: dict[int, list[str]] = {}
    if answers == 1:
        blocks[1] = [text[: headings[0].start() if headings else len(text)]]
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=False):
        digits = heading["number"]
        if len(digits) > 4 or not 1 <= int(digits) <= answers:
            raise Unreadable(f"there is no answer {digits[:8]} among those shown")
        blocks.setdefault(int(digits), []).append(text[heading.end() : end])
    return blocks


def _reading(blocks: list[str], what: str, scale: Scale) -> Reading:
    try:
        ratings = [rating for block in blocks for rating in _ratings(block, scale)]
    except Unreadable as unreadable:
        raise Unreadable(f"{what}: {unreadable.complaint}") from None
    reasons = (_rationale(block) for block in blocks)
    return Reading(only(ratings, what), next((reason for reason in reasons if reason), None))


def _ratings(block: str, scale: Scale) -> list[float | None]:
    alone = _ALONE.fullmatch(block)
    return read_text(alone[1], scale) if alone else list(_marked(block, scale))


def _marked(text: str, scale: Scale) -> Iterator[float | None]:
    for mark in _RATING.finditer(text):
        # After a line break only a line of its own counts: the "1." of a list that follows is no rating.
        line = text[mark.end() :].split("\n", 1)[0]
        if "\n" in mark["gap"] and not _ALONE.fullmatch(line.replace("out of", "/")):
            continue
        if "\n" in mark["gap"] and re.fullmatch(r"\s*[0-9]+[.)]\s*", line):
            raise Unreadable(f"{excerpt(line)} is not one clear rating")
        yield from read_text(line, scale)
    for mark in (*_DOUBLE_BRACKETS.finditer(text), *_FRACTION_LINE.finditer(text)):
        yield from read_text(mark[1], scale)


def _rationale(block: str) -> str | None:
    """What follows "Rationale:", up to a rating; else the block without its lines that are nothing but a rating."""
    marked = _RATIONALE.search(block)
    said = block[marked.end() :] if marked else block
    lines = [line for line in said.splitlines() if not _is_rating_line(line)]
    return "\n".join(lines).strip() or None


def _is_rating_line(line: str) -> bool:
    rest = _DOUBLE_BRACKETS.sub("", _RATING.sub("", line))
    return bool(line.strip()) and (not rest.strip() or bool(_ALONE.fullmatch(rest)))
