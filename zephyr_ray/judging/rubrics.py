"""The criterion and scale of each aspect, from the texts under rubrics/, and the fingerprint of these texts.

The aspects are those of UltraFeedback (arXiv 2310.01377, section 2.3); the words are our own.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template
from typing import NamedTuple

from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import ASPECTS

OVERALL = "overall"

PROMPT_VERSION = 1
"""Increased whenever code changes what a judge is sent or how its replies are read: both decide the ratings."""


class Scale(NamedTuple):
    """The range of a rating, which is a whole number; both ends are included."""

    low: int
    high: int


def scale_of(aspect: str) -> Scale:
    """1 to 5, and 1 to 10 for the overall score."""
    return Scale(1, 10) if aspect == OVERALL else Scale(1, 5)


def rationale_name(aspect: str) -> str:
    """The name of the reason for a rating, in the question and in the reply."""
    return "critique" if aspect == OVERALL else "rationale"


def rubric(aspect: str) -> str:
    """The criterion that completions are rated by."""
    return texts()[aspect]


def fill(name: str, **values: str) -> str:
    """A text with its placeholders filled. Values are not substituted again: a `$` in a completion stays."""
    return Template(texts()[name]).substitute(values)


@cache
def texts() -> dict[str, str]:
    """Every text that judges are sent, by name."""
    folder = resources.files("zephyr_ray").joinpath("judging", "rubrics")
    names = (*ASPECTS, OVERALL, "frame", "format", "complaint")
    return {name: folder.joinpath(f"{name}.txt").read_text(encoding="utf-8").strip() for name in names}


def rubric_fingerprint() -> str:
    """A hash of all texts and the code's version; part of the stage's fingerprint because it decides the ratings."""
    return content_id(PROMPT_VERSION, texts())
