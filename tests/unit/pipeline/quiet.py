"""Runs stages without a cluster and without a person who watches."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from zephyr_ray.pipeline import runner
from zephyr_ray.pipeline.events import Event, Said


class Quiet:
    """A screen, which keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Event] = []

    def say(self, text: str) -> None:
        self.tell(Said(text=text))

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def watched(self, name: str, unit: str) -> Any:
        return contextlib.nullcontext()


def without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the runner make stages that need no Ray."""
    monkeypatch.setattr(runner.connect, "connected", lambda preload: contextlib.nullcontext())
    monkeypatch.setattr("zephyr_ray.cluster.scheduling.check_job", lambda demands: None)
    monkeypatch.setattr("zephyr_ray.cluster.scheduling.wait_for_room", lambda *given: None)
