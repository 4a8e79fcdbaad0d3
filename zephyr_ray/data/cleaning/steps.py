"""The steps that clean a dialogue, as a recipe lists them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from zephyr_ray.config.cleaning import Casing, CleaningStep, Encoding, Language, PersonalData, Quality, Refusals
from zephyr_ray.data.cleaning.decontaminate import BenchmarkIndex, Benchmarks
from zephyr_ray.data.formats.messages import Message

if TYPE_CHECKING:
    import ray

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
    benchmarks: Benchmarks | None = None
    """No dialogue may contain one of them; looked for last, in the text as it will be trained on."""
    lexicon: ray.ObjectRef | None = None
    """The `CaseLexicon` of the corpus, where a step restores capitals."""

    @property
    def names(self) -> list[str]:
        """Of its steps, in order."""
        return [section.type for section in self.sections] + (["decontaminate"] if self.benchmarks else [])

    def steps(self) -> list[NamedStep]:
        """The steps themselves, made once per process; call it once per batch of rows."""
        return _made(self)


@functools.lru_cache(maxsize=2)
def _made(cleaning: Cleaning) -> list[NamedStep]:
    steps = [_step(section, cleaning.lexicon) for section in cleaning.sections]
    if cleaning.benchmarks is not None:
        steps.append(functools.partial(_without_benchmarks, index=cleaning.benchmarks.index()))
    return list(map(NamedStep, cleaning.names, steps))


def _without_benchmarks(messages: list[Message], *, index: BenchmarkIndex) -> list[Message]:
    index.check(messages)
    return messages


def _step(section: CleaningStep, lexicon: ray.ObjectRef | None) -> Step:
    # Imported here: a command that cleans nothing need not load what the steps need.
    match section:
        case Encoding():
            from zephyr_ray.data.cleaning import encoding

            return encoding.step(section)
        case Casing():
            import ray

            from zephyr_ray.data.cleaning import casing

            assert lexicon is not None
            return functools.partial(casing.restore, lexicon=ray.get(lexicon))
        case Refusals():
            from zephyr_ray.data.cleaning import refusals

            return refusals.step(section)
        case Quality():
            from zephyr_ray.data.cleaning import quality

            return quality.step(section)
        case Language():
            from zephyr_ray.data.cleaning import language

            return language.step(section)
        case PersonalData():
            from zephyr_ray.data.cleaning import personal_data

            return personal_data.step(section)
