"""Several drivers of one run, stopped anywhere and continued: what is finished stays, and readers see it whole."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.pipeline.drivers import STAGE, Driver, all_finished, check_whole, one_operation_at_a_time
from zephyr_ray.pipeline.artifacts import Run

SEEDS = range(int(os.environ.get("ZEPHYR_TEST_INTERLEAVINGS", "5")))


@pytest.fixture(autouse=True)
def gates() -> Iterator[None]:
    with one_operation_at_a_time():
        yield


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("where", "recipes"), [("disk", "ff"), ("disk", "fg"), ("disk", "fgf"), ("bucket", "fgf")])
def test_any_interleaving_of_drivers_leaves_whole_artifacts(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, seed: int, recipes: str
) -> None:
    root = str(tmp_path / "run") if where == "disk" else request.getfixturevalue("bucket")
    rng, drivers = random.Random(seed), [Driver(root, fingerprint) for fingerprint in recipes]
    running = list(drivers)
    while running:
        chosen = rng.choice(running)
        for _ in range(rng.choice([1, 1, 2, 5, 20])):
            if not chosen.step():
                running.remove(chosen)
                break
    check_end(root, drivers)


def check_end(root: str, drivers: list[Driver]) -> None:
    """What a driver finished is there, in its place or moved aside; and the next driver comes to its end."""
    last = Driver(root, "h")
    while last.step():
        continue
    assert last.outcome == "finished"
    found = all_finished(root)
    assert found[last.epoch] == "h"
    for driver in drivers:
        # A driver that found the artifact finished has written none of its epoch.
        assert driver.outcome != "finished" or driver.epoch in found or driver.fingerprint in found.values()


@pytest.mark.parametrize("second", ["f", "g"])
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_stopped_at_any_point_taken_over_and_continued(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, second: str
) -> None:
    """The successor comes to its end while the first is stopped; then nothing that the first writes counts."""
    points = 0
    while True:
        root = str(tmp_path / str(points)) if where == "disk" else f"{request.getfixturevalue('bucket')}/{points}"
        first = Driver(root, "f")
        if not all(first.step() for _ in range(points)):
            break
        successor = Driver(root, second)
        while successor.step():
            continue
        assert successor.outcome == "finished"
        before = all_finished(root)
        while first.step():
            check_whole(Run(root).artifact(STAGE))
            if 0 < first.epoch < successor.epoch:
                assert Run(root).artifact(STAGE).is_finished(second)
        # Where it had not taken the run yet, it takes it in its turn.
        assert before.items() <= all_finished(root).items()
        assert first.epoch > successor.epoch or Run(root).artifact(STAGE).is_finished(second)
        points += 1 if where == "disk" else 6
    assert points > 12


class Protocol(RuleBasedStateMachine):
    """Drivers that start, work, are killed and continued in any order."""

    @initialize()
    def start(self) -> None:
        self.root, self.drivers = tempfile.mkdtemp(prefix="protocol-"), list[Driver]()
        self.gates = one_operation_at_a_time()
        self.finished: dict[int, str] = {}

    def running(self) -> list[Driver]:
        return [driver for driver in self.drivers if driver.outcome is None]

    @precondition(lambda self: len(self.running()) < 3)
    @rule(fingerprint=st.sampled_from("fg"))
    def start_driver(self, fingerprint: str) -> None:
        self.drivers.append(Driver(self.root, fingerprint))

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 2), steps=st.sampled_from([1, 2, 3, 8, 40]))
    def work(self, which: int, steps: int) -> None:
        driver = self.running()[which % len(self.running())]
        for _ in range(steps):
            if not driver.step():
                return

    @precondition(lambda self: self.running())
    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        self.running()[which % len(self.running())].kill()

    @invariant()
    def readers_see_whole_artifacts_and_none_is_lost(self) -> None:
        if not hasattr(self, "root"):
            return
        check_whole(Run(self.root).artifact(STAGE))
        if not self.is_moving():
            found, newest = all_finished(self.root), max((driver.epoch for driver in self.drivers), default=0)
            assert self.finished.items() <= found.items()
            # What a driver finishes after its successor has taken the run may still be begun again by that.
            self.finished |= {epoch: fingerprint for epoch, fingerprint in found.items() if epoch == newest}

    def is_moving(self) -> bool:
        return "moving_to" in (Run(self.root).artifact(STAGE).unfinished() or {})

    def teardown(self) -> None:
        if hasattr(self, "root"):
            for driver in self.running():
                driver.kill()
            check_end(self.root, self.drivers)
            shutil.rmtree(self.root)


Protocol.TestCase.settings = settings(max_examples=400, stateful_step_count=30, deadline=None, phases=[Phase.generate])
TestProtocol = Protocol.TestCase
