"""A dialogue through the steps of its cleaning, one after the other: what each changed, dropped and cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from zephyr_ray.data.cleaning.steps import NamedStep
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped, storable


class Change(NamedTuple):
    """What a step did to a turn, or to several in a row where it removed some."""

    step: str
    turn: int
    """Number of the first message that differs, from 0."""
    before: str
    after: str


@dataclass
class StepCount:
    """What became of dialogues in one step."""

    seen: int = 0
    changed: int = 0
    dropped: int = 0
    seconds: float = 0.0
    """CPU time."""
    reasons: dict[str, int] = field(default_factory=dict)
    """The dropped ones by reason."""

    def add(self, other: StepCount) -> None:
        self.seen += other.seen
        self.changed += other.changed
        self.dropped += other.dropped
        self.seconds += other.seconds
        for reason, number in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + number


@dataclass
class StepCounts:
    """What became of dialogues in each step, in order (a `writer.Tally`)."""

    steps: dict[str, StepCount] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> StepCounts:
        return cls({name: StepCount() for name in names})

    def add(self, other: StepCounts) -> None:
        for name, count in other.steps.items():
            self.steps.setdefault(name, StepCount()).add(count)


def clean(
    messages: list[Message], steps: Sequence[NamedStep], counts: StepCounts
) -> tuple[list[Message], list[Change]]:
    """The messages after all steps, and what each step changed.

    Args:
        messages: Of a dialogue.
        steps: What is done to them.
        counts: Counts the dialogue in each step.

    Raises:
        Dropped: By a step.
    """
    changes: list[Change] = []
    for name, apply in steps:
        count = counts.steps[name]
        count.seen += 1
        begun = time.thread_time()
        try:
            after = apply(messages)
        except Dropped as dropped:
            count.dropped += 1
            count.reasons[dropped.reason] = count.reasons.get(dropped.reason, 0) + 1
            raise
        finally:
            count.seconds += time.thread_time() - begun
        if after is not messages:
            found = differences(name, messages, after)
            count.changed += bool(found)
            changes += found
            messages = after
    return messages, changes


def differences(step: str, before: Sequence[Message], after: Sequence[Message]) -> list[Change]:
    """The turns that differ; where there are fewer of them, the stretch from the first that differs to the last."""
    if len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [
            Change(step, turn, storable(old["content"]), storable(new["content"]))
            for turn, (old, new) in pairs
            if old != new
        ]
    first = _shared(before, after)
    last = _shared(before[first:][::-1], after[first:][::-1])
    return [Change(step, first, _text(before[first : len(before) - last]), _text(after[first : len(after) - last]))]


def _shared(first: Sequence[Message], second: Sequence[Message]) -> int:
    """How many messages both begin with."""
    pairs = zip(first, second, strict=False)
    return next((turn for turn, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _text(messages: Iterable[Message]) -> str:
    return storable("\n\n".join(f"{message['role']}: {message['content']}" for message in messages))
