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
    """Remove refusals and disclaimers of assistants ("As an AI language model, ...")."""
    remove: Literal["sentence", "turn", "dialogue"] = "dialogue"
    """What goes where one is found: the sentence, its turn with the user's turn before it, or the whole dialogue."""


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


class NearDuplicates(Section):
    """Of dialogues with almost the same words the first by source stays."""

    threshold: float = Field(0.7, gt=0, le=1)
    """Two dialogues are near duplicates if their runs of words have at least this Jaccard similarity."""
    words: int = Field(5, ge=1)
    """Length of a run of words. Case and punctuation do not count."""


CleaningStep = Annotated[Encoding | Casing | Refusals | Quality | Language | PersonalData, Field(discriminator="type")]
"""A step of cleaning, told apart by `type`."""
