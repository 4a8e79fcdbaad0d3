"""The evaluations at the end of a run. Imports nothing heavy."""

from __future__ import annotations

from pydantic import Field

from zephyr_ray.config.section import Function, compute


class Evaluation(Function):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """The stage's."""
    models: tuple[str, ...] = Field(("dpo",), min_length=1)
    """The stages of this run whose checkpoints it evaluates."""
    workers: int = compute(1, ge=1)
    """Actors that it may use, of a CPU each."""
