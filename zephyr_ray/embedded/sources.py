"""The embedded world's data sources, as functions that a recipe names; the same seed gives the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zephyr_ray.embedded import world


def dialogues(seed: int, count: int = 24_000, flawed: float = 0.4) -> Iterator[dict[str, Any]]:
    """The teacher's demonstrations; a share `flawed` of them has a flaw."""
    return world.dialogues(count, seed, flawed)


def prompts(seed: int, count: int = 1_600) -> Iterator[dict[str, str]]:
    """Prompts that do not occur in the dialogues."""
    return ({"prompt": text} for text in world.prompts("preferences", count, seed))


def preferences(seed: int, count: int = 1_600) -> Iterator[dict[str, Any]]:
    """Scored completions of the same prompts by simulated models."""
    return world.completions(count, seed)


def held_out_preferences(seed: int, count: int = 300) -> Iterator[dict[str, Any]]:
    """Scored completions of prompts that occur nowhere else."""
    return world.completions(count, seed, "held_out")
