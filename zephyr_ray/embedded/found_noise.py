"""How much of the planted noise (`noise.rows`) cleaning found, and what it took from the other rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.embedded.noise import SHARES, Kind, Row

_REASONS: dict[Kind, frozenset[str]] = {
    "disclaimer": frozenset({"disclaimer", "refusal"}),
    "benchmark": frozenset({"contaminated"}),
    "duplicate": frozenset({"repeated"}),
    "near_duplicate": frozenset({"near_duplicate"}),
}
"""What a row is dropped as, by what was planted in it."""


@dataclass(frozen=True)
class Count:
    """Rows, and how many of them something holds for."""

    rows: int
    of_them: int

    @property
    def share(self) -> float:
        return self.of_them / self.rows


@dataclass(frozen=True)
class Found:
    """What became of noisy rows."""

    planted: dict[Kind, Count]
    """By kind of noise the rows in which it was planted, and those that are mended: wrongly cased ones are equal to
    their originals, of a copy and its original exactly one is kept, others are dropped as what they are."""
    dropped: Count
    """Rows without noise, and those of them that are dropped though no copy of them stays."""
    changed: Count
    """Rows without noise that are kept, and those of them that are not as they were."""


def found(rows: Sequence[Row], kept: Iterable[Mapping[str, Any]], dropped: Iterable[Mapping[str, Any]]) -> Found:
    """What became of rows.

    Args:
        rows: What was read.
        kept: Rows of the stage `dialogues` (source, messages).
        dropped: Those that it left out (source, reason).
    """
    messages = {_place(row): row["messages"] for row in kept}
    reasons = {_place(row): row["reason"] for row in dropped}
    by_text = {str(row.original): place for place, row in enumerate(rows) if row.planted is None}

    def is_mended(place: int) -> bool:
        row = rows[place]
        assert row.planted is not None
        if row.planted == "wrong_case":
            return messages.get(place) == row.original
        here = reasons.get(place) in _REASONS[row.planted]
        if row.planted not in ("duplicate", "near_duplicate"):
            return here
        return here != (reasons.get(by_text[str(row.original)]) in _REASONS[row.planted])

    planted = {kind: [place for place, row in enumerate(rows) if row.planted == kind] for kind in SHARES}
    copies = planted["duplicate"] + planted["near_duplicate"]
    stand_for = {by_text[str(rows[place].original)] for place in copies if place in messages}
    clean = [place for place, row in enumerate(rows) if row.planted is None and place not in stand_for]
    stay = [place for place in clean if place in messages]
    return Found(
        {kind: Count(len(places), sum(map(is_mended, places))) for kind, places in planted.items()},
        Count(len(clean), len(clean) - len(stay)),
        Count(len(stay), sum(messages[place] != rows[place].messages for place in stay)),
    )


def _place(row: Mapping[str, Any]) -> int:
    """Where a row is among those that were read; its source ends in its number, from 1."""
    return int(row["source"].rpartition(":")[2]) - 1
