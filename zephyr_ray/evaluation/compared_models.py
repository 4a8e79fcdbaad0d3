"""Which two models of a file are compared, and in which direction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.comparison import Comparison, exchanged

_LISTED = 20


class Pair(NamedTuple):
    """A comparison with the names of its models."""

    a: str
    b: str
    comparison: Comparison


@dataclass(frozen=True)
class Compared:
    """What a file says of two models."""

    a: str
    b: str
    comparisons: list[Comparison]
    lines: int
    broken: int = 0
    """Lines that are no JSON object."""
    repeated: int = 0
    """Rows that a later one replaces."""
    incomplete: int = 0
    """Rows without what such a judgment needs."""
    others: int = 0
    """Rows of other models."""
    with_itself: int = 0
    """Rows that compare a model with itself."""


def select(path: str, pairs: Sequence[Pair], a: str | None, b: str | None) -> tuple[str, str, list[Comparison]]:
    """The comparisons of A with B, seen from A.

    Args:
        path: The file, for errors.
        pairs: All comparisons of the file, in either direction.
        a: Whose wins are counted. None: the one that is first in the file's first pair.
        b: The other one. None: there is one other only.

    Raises:
        UserError: The names do not pick one pair of models that are compared.
    """
    there = list(dict.fromkeys((pair.a, pair.b) for pair in pairs if pair.a != pair.b))
    if not there:
        raise UserError(f"{path} compares {pairs[0].a} with itself; there is nothing to tell")
    wanted = {name for name in (a, b) if name is not None}
    fitting = [names for names in there if wanted <= {*names}]
    if len({frozenset(names) for names in fitting}) != 1:
        what = "compares no such models" if not fitting else "compares several models; name two with --a and --b"
        raise UserError(f"{path} {what}: {listed(name for names in there for name in names)}")
    first = a or next(name for name in fitting[0] if name != b)
    second = next(name for name in fitting[0] if name != first)
    kept = [pair for pair in pairs if {pair.a, pair.b} == {first, second}]
    return first, second, [each.comparison if each.a == first else exchanged(each.comparison) for each in kept]


def two_of(path: str, models: Collection[str], a: str | None, b: str | None) -> tuple[str, str]:
    """The names of two models of which a file has ratings. Arguments as of `select`.

    Raises:
        UserError: The names do not pick two of them.
    """
    names = list(dict.fromkeys(models))
    unknown = [name for name in (a, b) if name is not None and name not in names]
    if unknown:
        raise UserError(f"{path} has no ratings of {', '.join(unknown)}: {listed(names)}")
    if a is not None and a == b:
        raise UserError(f"--a and --b name one model, {a}; name two of {listed(names)}")
    left = [name for name in names if name not in (a, b)]
    if len(left) < 2 - sum(name is not None for name in (a, b)):
        raise UserError(f"{path} has ratings of {listed(names)} alone; it takes two models to compare")
    if len(names) > 2 and (a is None or b is None):
        raise UserError(f"{path} rates several models; name two with --a and --b: {listed(names)}")
    first = a or left.pop(0)
    return first, b or left[0]


def listed(names: Iterable[str]) -> str:
    """Names for a person, each once and not too many of them."""
    different = sorted(dict.fromkeys(names))
    shown = ", ".join(different[:_LISTED])
    return f"{shown}, and {len(different) - _LISTED} more" if len(different) > _LISTED else shown
