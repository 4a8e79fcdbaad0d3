"""Jobs killed again and again, at moments that nobody chose: `make soak`. `make test` leaves these out.

ZEPHYR_SOAK_SEED draws the moments, ZEPHYR_SOAK_KILLS says how many there are of each job.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.jobs import copy_run, kill_and_finish, manifest, run_job
from tests.integration.test_resume import largest_difference

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("ZEPHYR_SOAK_KILLS", "10"))
LONGEST_S = 25.0  # an undisturbed job of these takes about that


def moments() -> list[float]:
    """Seconds after a job's start."""
    drawn = random.Random(int(os.environ.get("ZEPHYR_SOAK_SEED", "0")))
    return [drawn.uniform(1, LONGEST_S) for _ in range(KILLS)]


def after(seconds: float, root: Path, stage: str) -> Callable[[], bool]:
    """Whether so long has passed, or the stage is done."""
    begun = time.monotonic()
    return lambda: time.monotonic() - begun > seconds or (root / stage / "manifest.json").exists()


@pytest.mark.parametrize("alone", [True, False], ids=["the driver alone", "with all that came of it"])
def test_a_training_killed_at_any_moment(
    undisturbed: Path, prepared: Path, overrides: tuple[str, ...], tmp_path: Path, alone: bool
) -> None:
    root = copy_run(prepared, tmp_path / "run")
    for moment in moments():
        status, seen = kill_and_finish(
            "dpo", root, *overrides, when=after(moment, root, "dpo"), with_children=not alone
        )
        assert status in (0, -signal.SIGKILL), seen
    run_job("dpo", root, *overrides)
    assert largest_difference(undisturbed, root) <= 1e-6
    pairs = manifest(root, "tokenized")["counts"]["out"]
    assert manifest(root, "dpo")["trained"] == {"rows": pairs, "fewest_times": 2, "most_times": 2}


def test_stages_of_data_killed_at_any_moment(prepared: Path, overrides: tuple[str, ...], tmp_path: Path) -> None:
    root = tmp_path / "run"
    for moment in moments():
        status, seen = kill_and_finish(
            "reference_logps", root, *overrides, when=after(moment, root, "reference_logps"), with_children=True
        )
        assert status in (0, -signal.SIGKILL), seen
    run_job("reference_logps", root, *overrides)
    for stage in ("preferences", "tokenized", "reference_logps"):
        assert manifest(root, stage)["counts"] == manifest(prepared, stage)["counts"]
