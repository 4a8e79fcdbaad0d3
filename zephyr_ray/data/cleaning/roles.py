"""The order of roles: a system message first if at all, then user and assistant in turn, and the assistant last."""

from __future__ import annotations

from zephyr_ray.data.formats.messages import Message, roles_of
from zephyr_ray.schemas import Dropped, Reason


def in_order(messages: list[Message], *, drop_leading_turns: bool) -> list[Message]:
    """The messages without the user's turns that nobody answered at the end: the same list where there are none.

    `layouts.dialogue` refuses what begins or ends with the wrong role too, so that every dialogue can be trained on; it
    repairs nothing, and does not look whether user and assistant take turns.

    Args:
        messages: A dialogue.
        drop_leading_turns: The assistant's turns before the user's first one are left out, as in dialogues of which the
            beginning is missing; otherwise such a dialogue is dropped.

    Raises:
        Dropped: A role speaks out of turn, or no exchange is left.
    """
    start = 1 if messages and messages[0]["role"] == "system" else 0
    end = len(messages)
    while end > start and messages[end - 1]["role"] == "user":
        end -= 1
    first = start
    while drop_leading_turns and first < end and messages[first]["role"] == "assistant":
        first += 1
    turns = messages[first:end]
    expected = ("user", "assistant")
    if not turns or any(turn["role"] != expected[number % 2] for number, turn in enumerate(turns)):
        raise Dropped(Reason.WRONG_ROLES, roles_of(messages))
    return messages if len(turns) == len(messages) - start else [*messages[:start], *turns]
