"""A dialogue as it was read, from what is kept of it and what cleaning changed (`schemas.CHANGED`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zephyr_ray.data.cleaning.chain import Change
from zephyr_ray.data.formats.messages import Message

_TURN = re.compile(r"(?:\A|\n\n)(system|user|assistant): ")


def undone(messages: Sequence[Message], changes: Sequence[Change]) -> list[Message]:
    """The messages before the changes, the last of which is undone first. One that does not fit is left out."""
    found = list(messages)
    for change in reversed(changes):
        turn, before, after = change.turn, _turns(change.before), _turns(change.after)
        if (before or after) and (before or not change.before) and (after or not change.after):
            if found[turn : turn + len(after)] == after:
                found[turn : turn + len(after)] = before
        elif turn < len(found) and found[turn]["content"] == change.after:
            found[turn] = {"role": found[turn]["role"], "content": change.before}
    return found


def _turns(text: str) -> list[Message]:
    """The messages of several turns in one text."""
    _, *parts = _TURN.split(text)
    return [{"role": role, "content": content} for role, content in zip(parts[::2], parts[1::2], strict=True)]
