"""Texts of data cut to what a person wants to see of them, with the parts that matter marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, takewhile
from typing import NamedTuple

from zephyr_ray.data.formats.messages import Message

GONE, NEW, HIT, CUT = "gone", "new", "hit", "cut"
"""Text that was removed, that took its place, that made a dialogue be dropped; and the sign for text left out."""

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_WORD = re.compile(r"\w+")
_COMPARED = 400  # tokens of a text that are held against all of the other's, where not each is against one
_CONTEXT = 160  # characters shown around what is marked
_MARKED = 640  # characters shown of a marked text
_TURN = 280  # characters shown of a turn without a mark
_TURNS = 6
_HIT_WORDS = 60


class Piece(NamedTuple):
    """A part of a text, and what it is: "" (as it is), `GONE`, `NEW`, `HIT` or `CUT`."""

    text: str
    kind: str = ""


class Turn(NamedTuple):
    role: str
    pieces: list[Piece]


def differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts, with the words marked that only one of them has; what they share is cut to what is near a mark."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    start = _shared(old, new)
    end = _shared(old[start:][::-1], new[start:][::-1])
    old_middle, new_middle = old[start : len(old) - end], new[start : len(new) - end]
    head, tail = Piece("".join(old[:start])), Piece("".join(old[len(old) - end :]))
    gone, added = _marked(old_middle, new_middle)
    return _near_marks([head, *gone, tail]), _near_marks([head, *added, tail])


def found(messages: Sequence[Message], detail: str) -> list[Turn]:
    """The turns around the one with the text of a dropped row's `detail`, where it is marked; the first turns, if none
    has it. Case, punctuation and spaces may differ."""
    at, span = _hit([message["content"] for message in messages], detail) or (0, None)
    first = max(0, min(at - _TURNS // 2, len(messages) - _TURNS))
    shown = [
        Turn(message["role"], _around(message["content"], span if turn == at else None))
        for turn, message in enumerate(messages[first : first + _TURNS], first)
    ]
    left = len(messages) - first - len(shown)
    return [*_turns_left_out(first), *shown, *_turns_left_out(left)]


def _hit(texts: Sequence[str], detail: str) -> tuple[int, tuple[int, int]] | None:
    """Which text has what a detail says, and where: all of it, its characters, or its words. A detail may begin with
    where its text is from, and is cut at some length."""
    for pattern in _patterns(detail):
        for number, text in enumerate(texts):
            match = pattern.search(text)
            if match:
                return number, match.span()
    return None


def _patterns(detail: str) -> Iterator[re.Pattern[str]]:
    for text in (detail, detail.partition(": ")[2]):
        words = _WORD.findall(text)[:_HIT_WORDS]
        if not text.strip():
            continue
        literal = re.escape(text.strip())
        yield re.compile(rf"\A\s*{literal}\s*\Z")
        yield re.compile(rf"(?<!\w){literal}(?!\w)")
        yield re.compile(literal)
        if words:
            yield re.compile(r"(?<!\w)" + r"\W+".join(map(re.escape, words)), re.IGNORECASE)


def _around(text: str, span: tuple[int, int] | None) -> list[Piece]:
    if span is None:
        return _shortened(Piece(text), _TURN, 0)
    start, end = span
    return _near_marks([Piece(text[:start]), Piece(text[start:end], HIT), Piece(text[end:])])


def _shared(old: Sequence[str], new: Sequence[str]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _marked(old: Sequence[str], new: Sequence[str]) -> tuple[list[Piece], list[Piece]]:
    """Tokens that differ at both of their ends, as pieces."""
    same = [one == other for one, other in zip(old, new, strict=False)]
    if len(old) == len(new) and 2 * sum(same) >= len(same):  # tokens were replaced one by one
        runs = [(is_same, len(list(run))) for is_same, run in groupby(same)]
        ends = accumulate(length for _, length in runs)
        opcodes = [(is_same, end - n, end, end - n, end) for (is_same, n), end in zip(runs, ends, strict=True)]
    else:
        matcher = difflib.SequenceMatcher(None, old[:_COMPARED], new[:_COMPARED], autojunk=False)
        opcodes = [(what == "equal", a, b, c, d) for what, a, b, c, d in matcher.get_opcodes()]
        opcodes.append((False, _COMPARED, len(old), _COMPARED, len(new)))
    gone = [Piece("".join(old[a:b]), "" if is_same else GONE) for is_same, a, b, _, _ in opcodes]
    added = [Piece("".join(new[c:d]), "" if is_same else NEW) for is_same, _, _, c, d in opcodes]
    return gone, added


def _near_marks(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces without empty ones; of the longer unmarked ones what is near the pieces beside them."""
    there = [piece for piece in pieces if piece.text]
    if [piece.kind for piece in there] == [""]:
        return _around(there[0].text, None)
    shown: list[Piece] = []
    for number, piece in enumerate(there):
        if piece.kind in (HIT, CUT):
            shown.append(piece)
        elif piece.kind:
            shown += _shortened(piece, _MARKED, 0)
        else:
            shown += _shortened(piece, _CONTEXT if number else 0, _CONTEXT if number < len(there) - 1 else 0)
    return shown


def _shortened(piece: Piece, head: int, tail: int) -> list[Piece]:
    """A piece with so many characters of its start and its end, to whole words."""
    text = piece.text
    if len(text) <= head + tail + _CONTEXT // 4:
        return [piece]
    start = text[:head].rsplit(maxsplit=1)[0] if head and _is_within_word(text, head) else text[:head]
    last = len(text) - tail
    end = text[last:].split(maxsplit=1)[-1] if tail and _is_within_word(text, last) else text[last:]
    left = len(text) - len(start) - len(end)
    return [each for each in (Piece(start, piece.kind), _cut(left), Piece(end, piece.kind)) if each.text]


def _is_within_word(text: str, at: int) -> bool:
    return not text[at - 1].isspace() and not text[at].isspace()


def _cut(characters: int) -> Piece:
    return Piece(f" \u2026 {characters:,} characters \u2026 ", CUT)


def _turns_left_out(number: int) -> list[Turn]:
    return [Turn("", [Piece(f"{number:,} more {'turn' if number == 1 else 'turns'}", CUT)])] if number else []
