"""How rounds of sampling, judging and training follow each other. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zephyr_ray.config.section import Section


class EachRound(Section):
    method: str = "dpo"
    """The method on pairs whose model the next round samples from and trains on; further methods of the recipe train in
    the first round only."""
    reference: Literal["previous", "first"] = "previous"
    """The reference of the rounds after the first: the model that the round before trained, with which training starts
    in any case, or the one that the first round starts from."""
    prompts: Literal["all", "share"] = "all"
    """Which prompts a round answers: all of them, or a share that no other round has, drawn by seed."""
    replay: float = Field(0.0, ge=0, le=1)
    """Share of each earlier round's pairs, drawn by seed, that a later round trains on beside its own."""
