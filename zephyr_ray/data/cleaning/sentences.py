"""The sentences of a turn, and which of them are not its writer's own prose: code, lists, quotations, speech."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

_FENCED = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
_LINE = re.compile(r"[^\n]*\n+|[^\n]+\Z")
_NO_PROSE = re.compile(
    r"""\s{4} | \t | \s*(?:[-*•>|\#]\s? | \(?\d{1,3}[.):]\s | \(?[a-zA-Z][.)]\s)  # code, lists, tables, headings
    | [\s*_]*[^\W\d_][\w.'’ -]{0,30}[*_]*:[*_]*\s+\S                              # Robot: As an AI, I ...
    """,
    re.VERBOSE,
)
_END = re.compile(r"(?<=[.!?])[\"'”’)\]*_]{0,3}\s+(?=\S)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|[Dd]r|[Mm]rs?|[Mm]s|[Ss]t|[Pp]rof|[Vv]s|[Nn]o|[Ii]nc|[Ll]td|[Cc]o|[Bb]hd)|\b[A-Za-z]\.[A-Za-z])\.\s+\Z"
)
_LONGEST_ABBREVIATION = 20
"""Characters that hold one and the whitespace after it."""
_QUOTE = re.compile('["“”]')


class Sentence(NamedTuple):
    """A sentence, or a stretch of text that is none, with the whitespace after it."""

    text: str
    after: str
    prose: bool
    """False in code, lists, tables, headings, quotations and speech that is labelled with a name."""


@functools.lru_cache(maxsize=2)
def sentences_of(text: str) -> tuple[Sentence, ...]:
    """The sentences in order. Joined, each with what is after it, they are the text.

    A sentence ends at `.`, `!` or `?` before whitespace, whatever the next letter's case, and at the end of a line. The
    sentences of the last two texts are kept, since several functions read them.
    """
    found: list[Sentence] = []
    for number, part in enumerate(_FENCED.split(text)):
        if number % 2:
            found.append(_sentence(part, prose=False))
        else:
            found += [sentence for line in _LINE.findall(part) for sentence in _sentences_of_line(line)]
    return tuple(found)


def _sentences_of_line(line: str) -> Iterator[Sentence]:
    prose = not _NO_PROSE.match(line)
    start, quotes = 0, 0
    for end in [*(match.end() for match in _END.finditer(line)), len(line)]:
        if end < len(line) and _ABBREVIATION.search(line, max(start, end - _LONGEST_ABBREVIATION), end):
            continue
        piece = line[start:end]
        yield _sentence(piece, prose=prose and not quotes % 2 and piece[:1] not in '"“')
        quotes += len(_QUOTE.findall(piece))
        start = end


def _sentence(piece: str, *, prose: bool) -> Sentence:
    text = piece.rstrip()
    return Sentence(text, piece[len(text) :], prose and bool(text))
