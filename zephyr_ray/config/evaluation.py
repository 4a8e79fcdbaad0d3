"""The evaluations at the end of a run. Imports nothing heavy."""

from __future__ import annotations

from pydantic import Field

from zephyr_ray.config.section import Function, compute


class Evaluation(Function):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the evaluation, and of its stage."""
    models: tuple[str, ...] = Field(("dpo",), min_length=1)
    """Stages of this run whose checkpoints are evaluated."""
    workers: int = compute(1, ge=1)
    """Actors that the function may use, one CPU each."""
