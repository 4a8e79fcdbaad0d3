"""The steps that clean a dialogue, as a recipe lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from zephyr_ray.config.cleaning import CleaningStep
from zephyr_ray.data.formats.messages import Message

Step = Callable[[list[Message]], list[Message]]
"""Messages -> the messages as they should be: the same list where nothing changes, else a new one (a step never changes
its argument). Pure. It raises `schemas.Dropped` with the matching text as its detail where the dialogue has to go."""


class NamedStep(NamedTuple):
    """A step by the name that reports have for it."""

    name: str
    apply: Step


@dataclass(frozen=True)
class Cleaning:
    """What is done to each dialogue. Small and picklable."""

    sections: tuple[CleaningStep, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of its steps, in order."""
        return [section.type for section in self.sections]

    def steps(self) -> list[NamedStep]:
        """The steps themselves, made once per process; call it once per batch of rows."""
        return []
