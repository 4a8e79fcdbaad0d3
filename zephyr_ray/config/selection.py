"""Choosing some of the dialogues that are left after cleaning, and the vectors that stand for them. Imports nothing
heavy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

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


class Selection(Section):
    n: int = Field(ge=1)
    """How many dialogues are chosen; all of them, where there are not more."""
    by: Literal["random", "length", "quality", "diversity"]
    """random: any, by seed, which every other way is to be compared with; length: those with the most characters in the
    assistant's answers; quality: those with the highest score; diversity: those that stand for all best, to which the
    dialogues are nearest on average by `embeddings`."""
    column: str | None = Field(None, min_length=1)
    """With quality: column of the rows of `dialogues.train` that holds their score, a number. None: `judging` rates the
    last answer of each dialogue."""

    @model_validator(mode="after")
    def _a_column_is_of_quality(self) -> Self:
        if self.column is not None and self.by != "quality":
            raise ValueError(f"column={self.column} holds scores, which by={self.by} does not read; use by=quality")
        return self
