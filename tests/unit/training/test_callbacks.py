"""The counts of trained rows over restarts."""

from pathlib import Path

import numpy as np

from zephyr_ray.training.callbacks import restore_seen


def test_counts_of_all_ranks_go_to_rank_zero_at_any_world_size(tmp_path: Path) -> None:
    np.save(tmp_path / "seen_0.npy", np.array([1, 0, 2]))
    np.save(tmp_path / "seen_1.npy", np.array([0, 1, 0]))
    assert restore_seen(str(tmp_path), 0, 3).tolist() == [1, 1, 2]
    assert restore_seen(str(tmp_path), 1, 3).tolist() == [0, 0, 0]
