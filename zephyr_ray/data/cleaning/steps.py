"""Cleaning of one dialogue: steps that change its messages or drop it, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from zephyr_ray.data.formats.messages import Message

Step = Callable[[list[Message]], list[Message]]
"""Messages -> the messages as they should be: the same list where nothing changes, else a new one (a step never changes
its argument). Pure. It raises `schemas.Dropped` with the matching text as its detail where the dialogue has to go."""
