"""A dialogue through steps: what is kept, what is said about each change, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zephyr_ray.data.cleaning import chain
from zephyr_ray.data.cleaning.chain import Change, StepCount, StepCounts
from zephyr_ray.data.cleaning.steps import NamedStep
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped, Reason


def dialogue(*texts: str) -> list[Message]:
    """User and assistant in turn."""
    return [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(texts)]


def shout(messages: list[Message]) -> list[Message]:
    return [{**message, "content": message["content"].upper()} for message in messages]


def nothing(messages: list[Message]) -> list[Message]:
    return messages


def without_second_turn(messages: list[Message]) -> list[Message]:
    return messages[:2] + messages[4:]


def refuse(messages: list[Message]) -> list[Message]:
    raise Dropped(Reason.EMPTY, "why")


def counted(steps: Sequence[NamedStep]) -> StepCounts:
    return StepCounts.of(step.name for step in steps)


def test_steps_come_one_after_the_other_and_tell_what_they_changed() -> None:
    steps = [NamedStep("nothing", nothing), NamedStep("remove", without_second_turn), NamedStep("shout", shout)]
    counts, given = counted(steps), dialogue("a", "B", "c", "d", "e", "F")
    messages, changes = chain.clean(given, steps, counts)
    assert messages == dialogue("A", "B", "E", "F")
    assert given == dialogue("a", "B", "c", "d", "e", "F")
    assert changes == [
        Change("remove", 2, "user: c\n\nassistant: d", ""),
        Change("shout", 0, "a", "A"),
        Change("shout", 2, "e", "E"),
    ]
    seen = {name: (count.seen, count.changed, count.dropped) for name, count in counts.steps.items()}
    assert seen == {"nothing": (1, 0, 0), "remove": (1, 1, 0), "shout": (1, 1, 0)}


def test_a_step_that_makes_an_equal_list_has_changed_nothing() -> None:
    steps = [NamedStep("copy", lambda messages: [dict(message) for message in messages])]
    counts = counted(steps)
    assert chain.clean(dialogue("a", "b"), steps, counts) == (dialogue("a", "b"), [])
    assert counts.steps["copy"].changed == 0


def test_what_a_step_drops_is_not_seen_by_those_after_it() -> None:
    steps = [NamedStep("refuse", refuse), NamedStep("shout", shout)]
    counts = counted(steps)
    with pytest.raises(Dropped, match="why"):
        chain.clean(dialogue("a", "b"), steps, counts)
    assert (counts.steps["refuse"].dropped, counts.steps["shout"].seen) == (1, 0)
    assert counts.steps["refuse"].reasons == {"empty": 1}


def test_a_change_at_the_end_ends_where_the_dialogues_end() -> None:
    before, after = dialogue("a", "b", "c", "d"), dialogue("a", "b")
    assert chain.differences("cut", before, after) == [Change("cut", 2, "user: c\n\nassistant: d", "")]
    assert chain.differences("cut", before, dialogue("a", "b", "c")) == [Change("cut", 3, "assistant: d", "")]


def test_half_a_surrogate_pair_can_be_told() -> None:
    assert chain.differences("mend", dialogue("\ud800"), dialogue("a"))[0].before.encode()


def test_counts_of_tasks_add_up() -> None:
    total = StepCounts()
    for _ in range(2):
        total.add(StepCounts({"a": StepCount(3, 2, 1, 0.5, {"empty": 1}), "b": StepCount(2, 0, 0, 0.25)}))
    assert total.steps == {"a": StepCount(6, 4, 2, 1.0, {"empty": 2}), "b": StepCount(4, 0, 0, 0.5)}
