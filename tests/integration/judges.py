"""A judge for answers of a random model, which are nonsense: any score that tells them apart will do."""

from collections.abc import Mapping, Sequence


def length(messages: Sequence[Mapping[str, str]], answer: str) -> float | None:
    return float(len(answer) % 10) if answer else None
