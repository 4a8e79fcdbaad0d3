"""A dialogue as a chain of requests: what each method asks, in which order, and where a dialogue ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from zephyr_ray.config.generation import Magpie, Method, SelfInstruct, SelfPrompting, SimulatedUser
from zephyr_ray.generation import chain
from zephyr_ray.generation.chain import Unanswered
from zephyr_ray.generation.prompts import Message
from zephyr_ray.inference.request_plan import Completion, Failure
from zephyr_ray.schemas import Dropped, Reason

Said = str | Completion | Failure


class Script:
    """A teacher that says what is written, in order, and remembers what it was asked."""

    def __init__(self, *said: Said):
        self.said = list(said)
        self.asked: list[tuple[str, ...]] = []

    async def answer(self, messages: Sequence[Message]) -> Completion:
        return self._next(("answer", *(message["content"] for message in messages)))

    async def write(self, request: str) -> Completion:
        return self._next(("write", request))

    async def go_on_as_user(self, messages: Sequence[Message]) -> Completion:
        return self._next(("go on", *(message["content"] for message in messages)))

    def _next(self, asked: tuple[str, ...]) -> Completion:
        self.asked.append(asked)
        said = self.said.pop(0)
        if isinstance(said, Failure):
            raise Unanswered(said)
        return Completion(said, "stop", None) if isinstance(said, str) else said


def make(method: Method, *said: Said, seed: str | None = "seed") -> tuple[list[str], list[tuple[str, ...]]]:
    """What is said in the dialogue, and what the teacher was asked."""
    script = Script(*said)
    start = [] if seed is None else [{"role": "user", "content": seed}]
    messages = asyncio.run(chain.dialogue(method, start, script))
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    assert not script.said
    return [message["content"] for message in messages], script.asked


def test_magpie_goes_on_where_the_template_does() -> None:
    magpie = Magpie(type="magpie", dialogues=1, turns=2)
    said, asked = make(magpie, "Why?", "Because.\n", " And?", "That is all.", seed=None)
    assert said == ["Why?", "Because.", "And?", "That is all."]
    assert asked == [
        ("go on",),
        ("answer", "Why?"),
        ("go on", "Why?", "Because."),
        ("answer", "Why?", "Because.", "And?"),
    ]


def test_self_prompting_refines_in_view_of_the_answer() -> None:
    method = SelfPrompting(type="self_prompting", dialogues=1, refinements=2)
    said, asked = make(method, "first answer", "New task: second", "second answer", "third", "third answer")
    assert said == ["third", "third answer"]
    assert [kind for kind, *_ in asked] == ["answer", "write", "answer", "write", "answer"]
    assert asked[0] == ("answer", "seed")
    assert "<<<\nseed\n>>>" in asked[1][1]
    assert "<<<\nfirst answer\n>>>" in asked[1][1]
    assert asked[2] == ("answer", "second")
    assert "first answer" not in asked[3][1]
    assert asked[4] == ("answer", "third")


def test_a_simulated_user_is_shown_the_conversation() -> None:
    method = SimulatedUser(type="simulated_user", dialogues=1, turns=2)
    said, asked = make(method, "answer", '"How $so?"', "like this")
    assert said == ["seed", "answer", "How $so?", "like this"]
    assert "<<<\nUser: seed\n\nAssistant: answer\n>>>" in asked[1][1]
    assert asked[2] == ("answer", "seed", "answer", "How $so?")


def test_an_instruction_of_self_instruct_is_answered() -> None:
    assert make(SelfInstruct(type="self_instruct", dialogues=1), "answer") == (
        ["seed", "answer"],
        [("answer", "seed")],
    )


CUT = Completion("and so", "length", 8)


@pytest.mark.parametrize("bad", [CUT, "", "I cannot help with that.", Failure("not this", "refused")])
@pytest.mark.parametrize("place", [1, 2])
def test_a_dialogue_ends_before_what_cannot_be_used(bad: Said, place: int) -> None:
    method = SimulatedUser(type="simulated_user", dialogues=1, turns=4)
    said, _ = make(method, *["answer", "more?"][:place], bad)
    assert said == ["seed", "answer"]


@pytest.mark.parametrize(("bad", "reason"), [(CUT, Reason.TEACHER_CUT), ("", Reason.EMPTY)])
def test_without_an_answer_it_is_dropped(bad: Said, reason: Reason) -> None:
    with pytest.raises(Dropped) as dropped:
        make(SimulatedUser(type="simulated_user", dialogues=1), bad)
    assert dropped.value.reason == reason


@pytest.mark.parametrize("kind", ["failed", "given_up", "over_budget"])
def test_what_another_try_may_get_is_waited_for(kind: str) -> None:
    with pytest.raises(Unanswered):
        make(SimulatedUser(type="simulated_user", dialogues=1), "answer", Failure("busy", kind))  # type: ignore[arg-type]
