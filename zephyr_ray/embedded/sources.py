"""The embedded world's rows, as functions that a recipe names: the same seed gives the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zephyr_ray.embedded import world


def dialogues(seed: int, count: int = 24_000, flawed: float = 0.4) -> Iterator[dict[str, Any]]:
    """The teacher's demonstrations; a share `flawed` of them has a bad habit."""
    return world.dialogues(count, seed, flawed)


def prompts(seed: int, count: int = 1_600) -> Iterator[dict[str, str]]:
    """Prompts, none of which is among the dialogues."""
    return ({"prompt": text} for text in world.prompts("preferences", count, seed))


def preferences(seed: int, count: int = 1_600) -> Iterator[dict[str, Any]]:
    """Scored answers of simulated models to the same prompts."""
    return world.completions(count, seed)


def held_out_preferences(seed: int, count: int = 300) -> Iterator[dict[str, Any]]:
    """Scored answers to prompts that occur in nothing else."""
    return world.completions(count, seed, "held_out")
