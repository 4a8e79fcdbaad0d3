"""Shards cut anew: by hand on numbers, and against DeepSpeed itself, which goes on with another number of processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training.packed_workers import start
from zephyr_ray.errors import UserError
from zephyr_ray.training.deepspeed_config import GRADIENTS
from zephyr_ray.training.zero_resharding import (
    Cut,
    all_weights_cut_together,
    each_weight_cut,
    reslice,
    shard_folder,
    stages_that_read,
    write_optimizer,
    write_weights,
)

# Weights of odd sizes, smaller than a slice's alignment, and more of them than one sub-group holds.
SUB_GROUP = 20
CASES = [
    "1-float32",
    "2-float32",
    "3-float32",
    "1-bfloat16",
    "2-bfloat16",
    "3-bfloat16",
    "1-bfloat16-adapter",
    "2-float32-adapter",
    "3-float32-adapter",
]


def test_a_slice_is_taken_from_those_who_hold_it_and_padded() -> None:
    # Ten numbers, which two workers held as 5 + 5 behind three others; four hold them as 3 + 3 + 3 + 1.
    parts = [torch.tensor([-1.0, -1, -1, 0, 1, 2, 3, 4]), torch.tensor([-1.0, -1, -1, 5, 6, 7, 8, 9])]
    cut = Cut(size=10, old=5, new=3, group=0, offset=3)
    assert [reslice(cut, parts, rank).tolist() for rank in range(4)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 0]]


def test_stages_1_and_2_cut_all_weights_of_a_group_into_parts_of_even_length() -> None:
    # DeepSpeed pads 11 weights to 12 for 2 or 3 workers, and to 16 for 4.
    assert all_weights_cut_together([11], 2, 4) == [[[Cut(11, 6, 4, 0, 0)]]]
    assert all_weights_cut_together([11], 2, 3) == [[[Cut(11, 6, 4, 0, 0)]]]


def test_stage_3_cuts_each_weight_and_begins_a_sub_group_when_one_is_full() -> None:
    # Weights of 10, 7 and 4: two workers held 5, 4 and 2 of them; one holds all, and 10 fill its sub-group.
    cuts = each_weight_cut([[10, 7], [4]], [[0, 1]], 2, 1, limit=10)
    assert cuts == [[[Cut(10, 5, 10, 0, 0)], [Cut(7, 4, 7, 0, 5), Cut(4, 2, 4, 1, 0)]]]


def test_state_that_is_not_one_number_per_weight_is_refused(trained: Path, tmp_path: Path) -> None:
    shards = shard_folder(str(trained / "2-float32"))
    assert shards is not None
    for path in Path(shards).iterdir():
        state = torch.load(path, weights_only=False)
        if "optim" in path.name:
            for values in state["optimizer_state_dict"]["base_optimizer_state"]["state"].values():
                values["absmax1"] = torch.ones(2)
        torch.save(state, tmp_path / path.name)
    with pytest.raises(UserError, match=r"absmax1.*is not one number per weight"):
        write_optimizer(str(tmp_path), str(tmp_path), 0, 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of two processes after three steps, and their weights after six, for every case."""
    root = tmp_path_factory.mktemp("two")
    start(_process, 2, _begin, root, root)
    return root


@pytest.mark.parametrize(
    ("case", "stages"), [("1-float32", "1 or 2"), ("1-bfloat16", "1"), ("2-bfloat16", "2"), ("3-bfloat16", "3")]
)
def test_shards_tell_the_stages_that_go_on_from_them(trained: Path, case: str, stages: str) -> None:
    shards = shard_folder(str(trained / case))
    assert shards is not None
    assert stages_that_read(shards) == stages


@pytest.mark.parametrize("workers", [1, 4])  # an average over three would round in bfloat16
def test_another_number_of_processes_ends_with_the_same_weights(trained: Path, tmp_path: Path, workers: int) -> None:
    start(_process, workers, _go_on, trained, tmp_path)
    for case in CASES:
        expected, reached = torch.load(trained / f"{case}.pt"), torch.load(tmp_path / f"{case}.pt")
        for name, weight in expected.items():
            torch.testing.assert_close(reached[name], weight, rtol=0, atol=1e-6, msg=f"{case} {name}")


def _process(rank: int, workers: int, work: Callable[..., None], *arguments: Any) -> None:
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", rank=rank, world_size=workers, auto_mpi_discovery=False)
    work(rank, workers, *arguments)


def _begin(rank: int, workers: int, root: Path, _: Path) -> None:
    for case in CASES:
        engine = _engine(case, workers)
        _steps(engine, range(3))
        engine.save_checkpoint(str(root / case), exclude_frozen_parameters="adapter" in case)
        _steps(engine, range(3, 6))
        _save_weights(engine, root / f"{case}.pt")


def _go_on(rank: int, workers: int, source: Path, target: Path) -> None:
    for case in CASES:
        shards = shard_folder(str(source / case))
        assert shards is not None
        folder = target / case / Path(shards).name
        folder.mkdir(parents=True, exist_ok=True)
        if case[0] == "3" or rank == 0:
            write_weights(shards, str(folder), rank, workers)
        write_optimizer(shards, str(folder), rank, workers, SUB_GROUP)
        torch.distributed.barrier()
        engine = _engine(case, workers)
        engine.load_checkpoint(str(folder.parent), tag=folder.name, load_module_strict="adapter" not in case)
        _steps(engine, range(3, 6))
        _save_weights(engine, target / f"{case}.pt")


def _engine(case: str, workers: int) -> Any:
    """A small model with and without weight decay; as an adapter's, with frozen weights that are not saved."""
    import deepspeed

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 7, bias=False), torch.nn.Linear(7, 3))
    if "adapter" in case:
        model[1].requires_grad_(False)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.dim() > 1], "weight_decay": 0.1},
        {"params": [weight for weight in trained if weight.dim() == 1], "weight_decay": 0.0},
    ]
    stage = {"stage": int(case[0]), "sub_group_size": SUB_GROUP, "stage3_param_persistence_threshold": 0}
    config = {
        "train_batch_size": workers,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "bf16": {"enabled": "bfloat16" in case},
        "data_types": GRADIENTS,
        "zero_optimization": stage,
        "zero_force_ds_cpu_optimizer": False,
        "torch_adam": True,
    }
    return deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups, lr=0.05), config=config)[0]


def _steps(engine: Any, numbers: range) -> None:
    """Every process takes the same inputs, so that their number does not matter."""
    dtype = torch.bfloat16 if engine.bfloat16_enabled() else torch.float32
    for number in numbers:
        inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(number)).to(dtype)
        engine.backward(engine(inputs).float().square().mean())
        engine.step()


def _save_weights(engine: Any, path: Path) -> None:
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        if torch.distributed.get_rank() == 0:
            torch.save({name: weight.detach().clone() for name, weight in engine.module.named_parameters()}, path)
    torch.distributed.barrier()
