"""Parse a judge's reply without JSON. Only a rating that is marked as one counts.

Marks are a line or sentence that begins with "Rating:" or "Score:", [[7]], "4/5" on a line of its own, or a number that
is all the text about a completion. A rating that a sentence merely mentions or a ">" quotes does not count: the judge
is asked again instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from zephyr_ray.judging.parsing.rating import Rating, Unreadable, excerpt, only, read_text
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


def read_prose(text: str, completions: int, scale: Scale) -> list[Rating]:
    """One rating for each completion shown. Several need a heading each ("#### Output for Text 1", "Answer 2:").

    Raises:
        Unreadable: A completion has no rating, two different ones, or one that is not on the scale.
    """
    blocks = _blocks_by_completion(_without_markup(text), completions)
    return [_rating_of(blocks.get(place, []), f"answer {place}", scale) for place in range(1, completions + 1)]


def marked_ratings(text: str, scale: Scale) -> list[float | None]:
    """Every rating that a text marks as one.

    Raises:
        Unreadable: It marks a number as a rating that is not on the scale.
    """
    return list(_marked_ratings(_without_markup(text), scale))


def _without_markup(text: str) -> str:
    """The text without markup and code: `score: 0` in a program is not a rating."""
    fenced = _FENCED.fullmatch(text)
    return _MARKUP.sub("", fenced["inside"] if fenced else _CODE.sub("", text))


def _blocks_by_completion(text: str, completions: int) -> dict[int, list[str]]:
    """The blocks about each completion, by its number from 1. Several completions need a heading before a block."""
    headings = list(_HEADING.finditer(text))
    blocks: dict[int, list[str]] = {}
    if completions == 1:
        blocks[1] = [text[: headings[0].start() if headings else len(text)]]
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=False):
        digits = heading["number"]
        if len(digits) > 4 or not 1 <= int(digits) <= completions:
            raise Unreadable(f"there is no answer {digits[:8]} among those shown")
        blocks.setdefault(int(digits), []).append(text[heading.end() : end])
    return blocks


def _rating_of(blocks: list[str], what: str, scale: Scale) -> Rating:
    try:
        ratings = [rating for block in blocks for rating in _block_ratings(block, scale)]
    except Unreadable as unreadable:
        raise Unreadable(f"{what}: {unreadable.complaint}") from None
    reasons = (_rationale(block) for block in blocks)
    return Rating(only(ratings, what), next((reason for reason in reasons if reason), None))


def _block_ratings(block: str, scale: Scale) -> list[float | None]:
    alone = _ALONE.fullmatch(block)
    return read_text(alone[1], scale) if alone else list(_marked_ratings(block, scale))


def _marked_ratings(text: str, scale: Scale) -> Iterator[float | None]:
    for mark in _RATING.finditer(text):
        # After a line break the rating must have its own line: the "1." of a list that follows is not one.
        line = text[mark.end() :].split("\n", 1)[0]
        if "\n" in mark["gap"] and not _ALONE.fullmatch(line.replace("out of", "/")):
            continue
        if "\n" in mark["gap"] and re.fullmatch(r"\s*[0-9]+[.)]\s*", line):
            raise Unreadable(f"{excerpt(line)} is not one clear rating")
        yield from read_text(line, scale)
    for mark in (*_DOUBLE_BRACKETS.finditer(text), *_FRACTION_LINE.finditer(text)):
        yield from read_text(mark[1], scale)


def _rationale(block: str) -> str | None:
    """The text after "Rationale:", or else the whole block, without lines that are nothing but a rating."""
    marked = _RATIONALE.search(block)
    said = block[marked.end() :] if marked else block
    lines = [line for line in said.splitlines() if not _is_rating_line(line)]
    return "\n".join(lines).strip() or None


def _is_rating_line(line: str) -> bool:
    rest = _DOUBLE_BRACKETS.sub("", _RATING.sub("", line))
    return bool(line.strip()) and (not rest.strip() or bool(_ALONE.fullmatch(rest)))
