"""How many logical CPUs a cluster on this machine has, and how many of them a task that keeps a core busy asks for."""

from __future__ import annotations

import os

import pytest

from zephyr_ray.cluster import connect


@pytest.mark.parametrize(
    ("cores", "cpus", "busy"), [(1, 4, 3.5), (2, 4, 1.75), (3, 4, 3.5 / 3), (4, 4, 1.0), (64, 64, 1.0)]
)
def test_as_many_busy_tasks_as_cores_at_once(
    monkeypatch: pytest.MonkeyPatch, cores: int, cpus: int, busy: float
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert (connect.local_cpus(), connect.busy_cpus()) == (cpus, busy)
    left = cpus - cores * busy
    assert left < busy  # for no further one
    assert left == pytest.approx(0.5 if cores < 4 else 0)


def test_a_cluster_that_is_joined_counts_its_own_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert connect.busy_cpus() == 1.0
