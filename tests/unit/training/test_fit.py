from __future__ import annotations

from pathlib import Path

import pytest

from zephyr_ray.artifacts import Run
from zephyr_ray.recipe import DPO, Training
from zephyr_ray.training.fit import STATE_FOLDER, drop_unreadable_state, scaling


@pytest.mark.parametrize(("text", "kept"), [('{"current_report_index": 2}', True), ("", False), ('{"current', False)])
def test_a_list_of_checkpoints_that_a_kill_cut_short_is_dropped_with_the_state(
    tmp_path: Path, text: str, kept: bool
) -> None:
    folder = tmp_path / "dpo" / STATE_FOLDER
    folder.mkdir(parents=True)
    (folder / "checkpoint_manager_snapshot.json").write_text(text)
    drop_unreadable_state(Run(str(tmp_path)).artifact("dpo"))
    assert folder.exists() == kept


def test_a_training_that_never_began_has_nothing_to_drop(tmp_path: Path) -> None:
    drop_unreadable_state(Run(str(tmp_path)).artifact("dpo"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("workers", "elastic"), [(2, False), ((1, 4), True)])
def test_a_range_of_workers_is_ray_trains_elastic_scaling(workers: int | tuple[int, int], elastic: bool) -> None:
    asked = scaling(DPO(training=Training(workers=workers, cpus_per_worker=2)))
    assert asked.elasticity_enabled == elastic
    assert asked.num_workers == workers
