"""Changes that are undone give the dialogue that was read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.data.cleaning.test_chain import dialogue, nothing, shout, without_second_turn
from zephyr_ray.data.cleaning import chain
from zephyr_ray.data.cleaning.chain import Change, StepCounts
from zephyr_ray.data.cleaning.steps import NamedStep
from zephyr_ray.data.cleaning.undo import undone
from zephyr_ray.data.formats.messages import Message


def without_last(messages: list[Message]) -> list[Message]:
    return messages[:-1]


def merged(messages: list[Message]) -> list[Message]:
    """The first two as one."""
    return [{"role": "user", "content": "".join(each["content"] for each in messages[:2])}, *messages[2:]]


STEPS = [NamedStep(step.__name__, step) for step in (nothing, shout, without_second_turn, without_last, merged)]


@given(
    texts=st.lists(st.text("ab:\n AB", max_size=6), min_size=1, max_size=7),
    steps=st.lists(st.sampled_from(STEPS), max_size=4),
)
def test_a_cleaned_dialogue_leads_back(texts: list[str], steps: list[NamedStep]) -> None:
    given_messages = dialogue(*texts)
    messages, changes = chain.clean(given_messages, steps, StepCounts.of(step.name for step in steps))
    assert undone(messages, changes) == given_messages


def test_a_change_that_does_not_fit_is_left_out() -> None:
    changes = [Change("shout", 0, "a", "A"), Change("shout", 1, "x", "Y"), Change("cut", 9, "user: c", "user: d")]
    assert undone(dialogue("A", "b"), changes) == dialogue("a", "b")
