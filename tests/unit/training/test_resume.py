"""What a trainer resumes from, where other workers than its own wrote the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.training.resume import check_zero_stage, new_seed, prepare, written_by


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What two workers leave under plain data parallelism."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for rank in range(2):
        np.save(folder / f"seen_{rank}.npy", np.zeros(3))
        (folder / f"rng_state_{rank}.pth").touch()
    (folder / "optimizer.pt").write_text("moments")
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    return folder


def test_each_worker_left_its_count_of_rows(checkpoint: Path) -> None:
    assert written_by(str(checkpoint)) == 2


def test_the_optimizers_state_is_everyones_and_random_states_are_nobodys(checkpoint: Path, tmp_path: Path) -> None:
    for rank in range(3):
        prepare(str(checkpoint), str(tmp_path / "now"), rank, 3, first_of_machine=rank == 0)
    names = {path.name for path in (tmp_path / "now").iterdir()}
    assert names == {"seen_0.npy", "seen_1.npy", "optimizer.pt", "trainer_state.json"}
    assert (tmp_path / "now" / "optimizer.pt").read_text() == "moments"


def test_dropout_is_seeded_anew_for_every_step_and_worker(checkpoint: Path) -> None:
    seeds = {new_seed(str(checkpoint), seed, rank) for seed in range(2) for rank in range(2)}
    (checkpoint / "trainer_state.json").write_text('{"global_step": 5}')
    assert len(seeds | {new_seed(str(checkpoint), 0, 0)}) == 5
    assert new_seed(str(checkpoint), 0, 0) == new_seed(str(checkpoint), 0, 0)


@pytest.mark.parametrize(
    ("file", "fits", "written"),
    [
        ("", (0,), "0"),
        ("mp_rank_00_model_states.pt", (1, 2), "1 or 2"),
        ("zero_pp_rank_0_mp_rank_00_model_states.pt", (3,), "3"),
    ],
)
def test_a_training_goes_on_under_the_zero_stage_that_it_was_begun_with(
    checkpoint: Path, file: str, fits: tuple[int, ...], written: str
) -> None:
    if file:
        (checkpoint / "global_step4").mkdir()
        (checkpoint / "global_step4" / file).touch()
    for zero_stage in range(4):
        if zero_stage in fits:
            check_zero_stage(str(checkpoint), "dpo", zero_stage)
            continue
        with pytest.raises(UserError, match=rf"dpo\.training\.zero_stage={zero_stage}: .* begun with {written} "):
            check_zero_stage(str(checkpoint), "dpo", zero_stage)
