"""How dialogues are cleaned: steps that look at one dialogue each, in the recipe's order. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from zephyr_ray.config.section import Section

_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de diq
dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is
it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl
my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh
si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())
"""ISO 639 codes of the languages that fastText's model tells apart."""


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
    leading_answer: Literal["turn", "dialogue"] = "turn"
    """What goes where the assistant speaks before the user: its turns up to the user's first, or the whole dialogue."""
    cut_answer: Literal["turn", "dialogue", "keep"] = "turn"
    """What goes where the last answer was cut off or is empty: it and the user's turn before it (or the whole dialogue,
    if no answer would be left), always the whole dialogue, or nothing."""
    min_characters: int = Field(1, ge=1)
    """Shortest turn of an assistant; a shorter one drops the dialogue."""
    max_characters: int | None = Field(None, ge=1)
    """Longest turn of anyone; a longer one drops the dialogue. None: any length."""
    min_turns: int = Field(1, ge=1)
    """Fewest turns of the user."""
    max_turns: int | None = Field(None, ge=1)
    """Most turns of the user. None: any number."""

    @model_validator(mode="after")
    def _ranges_hold_something(self) -> Self:
        for unit in ("characters", "turns"):
            fewest, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if most is not None and fewest > most:
                raise ValueError(f"min_{unit} ({fewest}) is more than max_{unit} ({most}); nothing would be kept")
        return self


class Language(Section):
    type: Literal["language"]
    """Drop dialogues in other languages."""
    keep: tuple[str, ...] = Field(("en",), min_length=1)
    """Languages to keep, as ISO 639 codes (en, zh, ceb): one of those that fastText's model knows."""

    @field_validator("keep")
    @classmethod
    def _is_known(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [code for code in keep if code not in LANGUAGES]:
            raise ValueError(f"{unknown[0]!r} is no code of a known language; write en, de, zh and the like")
        return keep


class PersonalData(Section):
    type: Literal["personal_data"]
    """Mask e-mail addresses, telephone numbers and access keys."""
    mask: tuple[Literal["email", "phone", "key"], ...] = Field(("email", "phone", "key"), min_length=1)
    """What is masked."""


class NearDuplicates(Section):
    """Of dialogues with almost the same words the first by source stays."""

    threshold: float = Field(0.7, gt=0, le=1)
    """Two dialogues are near duplicates if their runs of words have at least this Jaccard similarity."""
    words: int = Field(5, ge=1)
    """Length of a run of words. Case and punctuation do not count."""


CleaningStep = Annotated[Encoding | Casing | Refusals | Quality | Language | PersonalData, Field(discriminator="type")]
"""A step of cleaning, told apart by `type`."""
