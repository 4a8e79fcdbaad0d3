"""Reads the texts under rubrics/ -> the criterion of each aspect, its scale, and a fingerprint of all that is asked.

The aspects are those of UltraFeedback (arXiv 2310.01377, section 2.3); the words are our own.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template
from typing import NamedTuple

from zephyr_ray.pipeline.artifacts import content_id
from zephyr_ray.schemas import ASPECTS

OVERALL = "overall"

PROMPT_VERSION = 1
"""Raised whenever code changes what a judge is sent, or how its replies are read: both decide the ratings."""


class Scale(NamedTuple):
    """The whole numbers that a rating may be, both ends included."""

    low: int
    high: int


def scale_of(aspect: str) -> Scale:
    """1 to 5, and 1 to 10 for the overall score."""
    return Scale(1, 10) if aspect == OVERALL else Scale(1, 5)


def rationale_name(aspect: str) -> str:
    """What the reason for a rating is called, to the judge and in its reply."""
    return "critique" if aspect == OVERALL else "rationale"


def rubric(aspect: str) -> str:
    """The criterion that answers are rated by."""
    return texts()[aspect]


def fill(name: str, **values: str) -> str:
    """A frame text with its places filled. What is filled in is not looked at again: a `$` in an answer stays one."""
    return Template(texts()[name]).substitute(values)


@cache
def texts() -> dict[str, str]:
    """Every text that judges are sent, by name."""
    folder = resources.files("zephyr_ray").joinpath("judging", "rubrics")
    names = (*ASPECTS, OVERALL, "frame", "format", "complaint")
    return {name: folder.joinpath(f"{name}.txt").read_text(encoding="utf-8").strip() for name in names}


def rubric_fingerprint() -> str:
    """A hash of all texts and of the code's version: part of the stage's fingerprint, as it decides the ratings."""
    return content_id(PROMPT_VERSION, texts())
