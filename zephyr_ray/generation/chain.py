"""One dialogue as a chain of requests, each of which depends on the replies to those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from zephyr_ray.config.generation import Magpie, Method, SelfPrompting
from zephyr_ray.generation import prompts, replies
from zephyr_ray.generation.prompts import Message
from zephyr_ray.inference.request_plan import Completion, Failure
from zephyr_ray.schemas import Dropped


class Unanswered(Exception):  # noqa: N818 (what becomes of a dialogue, not an error of the program)
    """A request has no reply."""

    def __init__(self, failure: Failure):
        super().__init__(failure.reason)
        self.failure = failure


class Teacher(Protocol):
    """Who makes one dialogue. Its requests are numbered in their order, which decides their seeds.

    All methods raise Unanswered where there is no reply.
    """

    async def answer(self, messages: Sequence[Message]) -> Completion:
        """The assistant's answer to a conversation."""

    async def write(self, request: str) -> Completion:
        """What the user's side is asked to write."""

    async def go_on_as_user(self, messages: Sequence[Message]) -> Completion:
        """The conversation's text as the model goes on with it where the template begins a user's message."""


async def dialogue(method: Method, seed: Sequence[Message], teacher: Teacher) -> list[Message]:
    """The messages of a dialogue, of which the last is an answer.

    A dialogue ends before its first reply that cannot be used, or that the server refused, if it has an answer by then.

    Args:
        method: How it is made.
        seed: What it starts from; empty for magpie.
        teacher: Who makes it.

    Raises:
        Dropped: There is no reply that can be used.
        Unanswered: A request has no reply.
    """
    messages = await _opening(method, seed, teacher)
    messages = [*messages, await _answer(messages, teacher)]
    for _ in range(method.turns - 1):
        try:
            asked = [*messages, await _next_message(method, messages, teacher)]
            messages = [*asked, await _answer(asked, teacher)]
        except Dropped:
            return messages
        except Unanswered as unanswered:
            if unanswered.failure.kind != "refused":
                raise
            return messages
    return messages


async def _opening(method: Method, seed: Sequence[Message], teacher: Teacher) -> list[Message]:
    """The messages before the first answer that is kept."""
    if isinstance(method, Magpie):
        return [await _next_message(method, [], teacher)]
    messages = list(seed)
    for _ in range(method.refinements if isinstance(method, SelfPrompting) else 0):
        answer = replies.said(await teacher.answer(messages))
        refined = await teacher.write(prompts.refined_instruction(messages, answer))
        messages = [_user(replies.user_message(refined))]
    return messages


async def _answer(messages: Sequence[Message], teacher: Teacher) -> Message:
    return {"role": "assistant", "content": replies.said(await teacher.answer(messages))}


async def _next_message(method: Method, messages: Sequence[Message], teacher: Teacher) -> Message:
    """The user's next message: the model's own continuation, or that of a simulated user."""
    if isinstance(method, Magpie):
        return _user(replies.said(await teacher.go_on_as_user(messages)))
    return _user(replies.user_message(await teacher.write(prompts.next_message(messages))))


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
