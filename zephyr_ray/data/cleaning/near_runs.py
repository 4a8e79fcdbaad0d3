"""Whether a text has a run of words of another, but for a few edits, around a piece that both have.

An edit is a word that was inserted, left out or changed. Another division of the same letters into words is none.
"""

from __future__ import annotations

from collections.abc import Sequence

Words = Sequence[str]


def fewest_edits(
    wanted: Words, at: int, text: Words, start: int, piece: int, *, run: int, edits: int, changes: int
) -> int | None:
    """The fewest edits with which `run` words of `wanted` in a row, those of the piece among them, are in the text.

    Args:
        wanted: The words of which some are looked for.
        at: Where the piece begins in them.
        text: The words in which they are looked for: the piece and as many around it as may belong to the run.
        start: Where the piece begins in these.
        piece: Its words.
        run: Length of the run in words of `wanted`.
        edits: The most edits.
        changes: The most words among them that were changed or left out.

    Returns:
        Their number, or None if it takes more.
    """
    before = _reached(_mirrored(wanted[max(0, at - run) : at]), _mirrored(text[:start]), edits)
    after = _reached(wanted[at + piece : at + piece + run], text[start + piece :], edits)
    enough = [
        used + used_after
        for (used, changed), words in before.items()
        for (used_after, changed_after), words_after in after.items()
        if words + piece + words_after >= run and changed + changed_after <= changes
    ]
    fewest = min(enough, default=edits + 1)
    return fewest if fewest <= edits else None


def _reached(wanted: Words, text: Words, edits: int) -> dict[tuple[int, int], int]:
    """How many of the wanted words the text begins with, by the edits and the changes among them that this takes."""
    reached: dict[tuple[int, int], int] = {}
    waiting = [(0, 0, 0, 0)]
    while waiting:
        used, changed, i, j = waiting.pop()
        i, j = _followed(wanted, i, text, j)
        reached[used, changed] = max(i, reached.get((used, changed), 0))
        if used == edits or i == len(wanted):
            continue
        waiting.append((used + 1, changed + 1, i + 1, j))
        if j < len(text):
            waiting += [(used + 1, changed, i, j + 1), (used + 1, changed + 1, i + 1, j + 1)]
    return reached


def _followed(wanted: Words, i: int, text: Words, j: int) -> tuple[int, int]:
    """The places behind the words from i and j on that are the same, however they are divided."""
    while i < len(wanted) and j < len(text):
        if wanted[i] == text[j]:
            i, j = i + 1, j + 1
            continue
        if wanted[i][0] != text[j][0] or (ends := _same_letters(wanted, i, text, j)) is None:
            break
        i, j = ends
    return i, j


def _same_letters(wanted: Words, i: int, text: Words, j: int) -> tuple[int, int] | None:
    """The places behind the fewest words that have the same letters when they are joined, or None."""
    one, other = wanted[i], text[j]
    i, j = i + 1, j + 1
    while one != other:
        if len(one) < len(other):
            if i == len(wanted) or not other.startswith(one):
                return None
            one, i = one + wanted[i], i + 1
        else:
            if j == len(text) or not one.startswith(other):
                return None
            other, j = other + text[j], j + 1
    return i, j


def _mirrored(words: Words) -> list[str]:
    return [word[::-1] for word in reversed(words)]
