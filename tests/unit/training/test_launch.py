"""What a training is started with, and what a killed one leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zephyr_ray.config.training import Training
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.training import state
from zephyr_ray.training.launch import environment, scaling
from zephyr_ray.training.methods import method_of
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.worker import packed_plan


def store(run: Run, epoch: int, text: str) -> Path:
    folder = Path(run.path, "dpo", state.FOLDER, f"e{epoch:06d}-ray" if epoch else "ray")
    folder.mkdir(parents=True)
    (folder / "checkpoint_manager_snapshot.json").write_text(text)
    return folder


LISTED = '{"latest_checkpoint_result": {"checkpoint_dir_name": "checkpoint_7"}}'


@pytest.mark.parametrize(("text", "kept"), [(LISTED, True), ("", False), ('{"latest', False)])
def test_a_list_of_checkpoints_that_a_kill_cut_short_is_dropped_with_the_state(
    tmp_path: Path, text: str, kept: bool
) -> None:
    run = Run(str(tmp_path))
    folder = store(run, 0, text)
    assert state.last_checkpoint(run.artifact("dpo")) is None  # Ray Train finds its own folder by the name
    assert folder.exists() == kept


def test_a_driver_goes_on_from_the_last_checkpoint_of_those_before_it(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.epoch = 5
    output = run.artifact("dpo")
    assert state.last_checkpoint(output) is None
    former = Path(run.path, "dpo", state.FOLDER)
    former.mkdir(parents=True)
    (former / "checkpoint_manager_snapshot.json").write_text(LISTED.replace("7", "0"))
    assert state.last_checkpoint(output) == str(former / "checkpoint_0")
    store(run, 1, LISTED.replace("7", "1"))
    earlier = store(run, 3, LISTED)
    store(run, 4, '{"latest_checkpoint_result": null}')
    store(run, 2, "")
    store(run, 6, LISTED.replace("7", "9"))  # a successor's, of which a driver that was taken over makes no use
    assert state.last_checkpoint(output) == str(earlier / "checkpoint_7")
    assert state.own_name(output) == "e000005-ray"


def test_a_pair_over_the_budget_is_alone_or_refused_as_the_recipe_says() -> None:
    pairs = SimpleNamespace(packed_lengths=lambda: np.array([30, 90, 40]), loss_weights=lambda: None)
    plan = Plan(3, 3, 1, 0)
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
