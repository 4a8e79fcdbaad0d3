"""What a training is started with, and what a killed one leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zephyr_ray.config.training import Training
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.training.launch import STATE_FOLDER, drop_unreadable_state, environment, scaling
from zephyr_ray.training.methods import method_of
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.worker import packed_plan


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


def test_a_pair_over_the_budget_is_alone_or_refused_as_the_recipe_says() -> None:
    pairs, plan = SimpleNamespace(packed_lengths=lambda: np.array([30, 90, 40])), Plan(3, 3, 1, 0)
    alone = packed_plan(plan, 0, 1, pairs, Training(tokens_per_micro_batch=80), method_of("dpo"))
    assert [[slot.row for slot in part] for part in alone.step(0)] == [[1], [2, 0]]
    with pytest.raises(UserError, match=r"1 rows are larger than .*=80 \(the largest has 90 tokens\).*alone"):
        packed_plan(plan, 0, 1, pairs, Training(tokens_per_micro_batch=80, oversized="refuse"), method_of("dpo"))


@pytest.mark.parametrize(("workers", "elastic"), [(2, False), ((1, 4), True)])
def test_a_range_of_workers_is_ray_trains_elastic_scaling(workers: int | tuple[int, int], elastic: bool) -> None:
    asked = scaling(Training(workers=workers, cpus_per_worker=2))
    assert asked.elasticity_enabled == elastic
    assert asked.num_workers == workers


def test_gpu_workers_get_an_allocator_for_rows_of_many_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    gpu, cpu = (Training(gpus_per_worker=count) for count in (1, 0))
    assert environment(gpu) == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert environment(cpu) == {}
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    assert environment(gpu) == {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}
