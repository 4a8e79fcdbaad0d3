"""How dialogues are cleaned: steps that look at one dialogue each, in the recipe's order. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zephyr_ray.config.section import Section


class Encoding(Section):
    type: Literal["encoding"]
    """Repair text that was decoded wrongly, and normalize Unicode."""


class Casing(Section):
    type: Literal["casing"]
    """Restore capitals in turns that lost them: starts of sentences, "I", and names and acronyms that the rest of the
    dialogues write with capitals."""


class Refusals(Section):
    type: Literal["refusals"]
    """Remove refusals and disclaimers of assistants ("I cannot assist with that", "As an AI language model, ...")."""
    refusals: Literal["turn", "dialogue", "keep"] = "dialogue"
    """What goes where an answer refuses: its turn with the user's turn before it, the whole dialogue, or nothing."""
    disclaimers: Literal["sentence", "turn", "dialogue", "keep"] = "sentence"
    """What goes where an answer that helps has a disclaimer: the disclaimer, the turn with the user's turn before it,
    the whole dialogue (as Zephyr's data was made), or nothing."""


class Quality(Section):
    type: Literal["quality"]
    """Drop dialogues with empty or cut turns, a wrong order of roles, repetition loops, or text that is none."""


class Language(Section):
    type: Literal["language"]
    """Drop dialogues in other languages."""
    keep: tuple[str, ...] = Field(("en",), min_length=1)
    """Languages to keep, as ISO 639-1 codes."""


class PersonalData(Section):
    type: Literal["personal_data"]
    """Mask e-mail addresses, telephone numbers and access keys."""


CleaningStep = Annotated[Encoding | Casing | Refusals | Quality | Language | PersonalData, Field(discriminator="type")]
"""A step of cleaning, told apart by `type`."""
