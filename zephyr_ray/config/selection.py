"""Choosing some of the dialogues that are left after cleaning, and the vectors that stand for them. Imports nothing
heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zephyr_ray.config.section import Section, compute


class Embeddings(Section):
    """Vectors that stand for dialogues, for choosing varied ones and for reports of how varied they are."""

    model: str = Field(min_length=1)
    """A sentence-embedding model: the folder, URI or hub id of one that sentence-transformers loads."""
    revision: str | None = None
    """Branch, tag or commit, if `model` is a hub id."""
    workers: int = compute(1, ge=1)
    """Actors, each of which holds the model."""
    cpus_per_worker: float = compute(1, gt=0)
    """Logical CPUs per actor."""
    gpus_per_worker: float = compute(0, ge=0)
    """GPUs per actor; 0 computes on the CPU."""
    labels: dict[str, str] = compute({})
    """Ray node labels that the actors' nodes must have."""
    batch_size: int = compute(64, ge=1)
    """Dialogues per forward pass."""


class _Selection(Section):
    n: int = Field(ge=1)
    """How many dialogues are chosen; all of them, where there are not more."""


class RandomSelection(_Selection):
    by: Literal["random"]
    """Any of them, by seed: what every other way is to be compared with."""


class LengthSelection(_Selection):
    by: Literal["length"]
    """Those with the most characters in the assistant's answers."""


class QualitySelection(_Selection):
    by: Literal["quality"]
    """Those with the highest score."""
    column: str | None = Field(None, min_length=1)
    """Column of the rows of `dialogues.train` that holds their score, a number. None: `judging` rates the last answer
    of each dialogue."""


class DiversitySelection(_Selection):
    by: Literal["diversity"]
    """Those that stand for all best: to which the dialogues are nearest on average, by `embeddings`."""


Selection = Annotated[
    RandomSelection | LengthSelection | QualitySelection | DiversitySelection, Field(discriminator="by")
]
"""How dialogues are chosen, told apart by `by`."""
