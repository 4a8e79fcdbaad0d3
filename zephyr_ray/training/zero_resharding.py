"""Resharding of DeepSpeed's ZeRO checkpoints, so that training goes on with another number of workers.

ZeRO cuts float32 weights and optimizer state into one flat piece per worker, and DeepSpeed loads a piece only where as
many workers run as wrote it. A piece for another number of workers is made of slices of the old pieces. Files are
memory-mapped: a worker reads its own share and no more, and nobody holds the whole.

Layouts (DeepSpeed 0.19): stages 1 and 2 join all weights of a parameter group and cut the whole into equal parts; stage
3 cuts every weight on its own (arXiv 1910.02054), and joins a worker's slices in sub-groups of bounded size. Stage 1 in
bfloat16 has an optimizer class of its own, which cuts alike and writes other keys beside the same tensors.
"""

from __future__ import annotations

import copy
import glob
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from zephyr_ray.errors import UserError
from zephyr_ray.training.deepspeed_config import SUB_GROUP_SIZE

_ALIGNMENT = 2  # stages 1 and 2 make a worker's part a multiple of so many elements
_MODEL = "mp_rank_00_model_states.pt"
_OPTIMIZER = "mp_rank_00_optim_states.pt"


class Cut(NamedTuple):
    """A tensor that is cut into equal slices, one per worker; what the last ones have too much is padding."""

    size: int
    """Elements of the whole tensor."""
    old: int
    """Elements of a slice when it was written."""
    new: int
    """Elements of a slice now."""
    group: int
    """Number of the flat group in the files that holds it."""
    offset: int
    """Where a worker's slice begins in its part of that group."""


def shard_folder(checkpoint: str) -> str | None:
    """The folder of DeepSpeed's files in a checkpoint, or None where training was not sharded."""
    found = glob.glob(os.path.join(checkpoint, "global_step*"))
    return found[0] if found else None


def cuts_each_weight(shards: str) -> bool:
    """Whether a folder of shards was written under ZeRO stage 3, not 1 or 2."""
    return os.path.exists(os.path.join(shards, f"zero_pp_rank_0_{_MODEL}"))


def stages_that_read(shards: str) -> str:
    """The ZeRO stages that go on from a folder of shards: 3, 1 or 2 (which write alike in float32), 1, or 2."""
    if cuts_each_weight(shards):
        return "3"
    narrow = os.path.join(shards, f"bf16_zero_pp_rank_0_{_OPTIMIZER}")
    if not os.path.exists(narrow):
        return "1 or 2"
    state = torch.load(narrow, map_location="cpu", weights_only=False, mmap=True)["optimizer_state_dict"]
    return "2" if "zero_stage" in state else "1"


def write_weights(shards: str, target: str, rank: int, workers: int) -> None:
    """Writes the file of weights that a worker loads: under stages 1 and 2 one for all, under stage 3 its own.

    Under stage 3 the file holds no weights (they are in the shards), but what the model has beside them.
    """
    each = cuts_each_weight(shards)
    state = torch.load(_model_file(shards), map_location="cpu", weights_only=False, mmap=True)
    if each and state.get("frozen_param_fragments"):
        raise UserError("weights are frozen, and their shards fit the number of workers that wrote them only")
    name = f"zero_pp_rank_{rank}_{_MODEL}" if each else _MODEL
    torch.save({**state, "dp_world_size": workers}, os.path.join(target, name))


def write_optimizer(shards: str, target: str, rank: int, workers: int, limit: int = SUB_GROUP_SIZE) -> None:
    """Writes one worker's float32 weights and optimizer state.

    Args:
        shards: Folder of the files of all workers that there were.
        target: Folder to write to.
        rank: The worker's number.
        workers: How many there are now.
        limit: Elements of a worker after which stage 3 begins a new sub-group.

    Raises:
        UserError: The optimizer keeps state that is not one value per weight (8-bit optimizers do).
    """
    names = sorted(glob.glob(os.path.join(shards, f"*zero_pp_rank_*_{_OPTIMIZER}")), key=_rank)
    files = [torch.load(name, map_location="cpu", weights_only=False, mmap=True) for name in names]
    states = [file["optimizer_state_dict"] for file in files]
    shapes = torch.load(_model_file(shards), map_location="cpu", weights_only=False, mmap=True)["param_shapes"]
    sizes = [[shape.numel() for shape in group.values()] for group in shapes]
    if cuts_each_weight(shards):
        optimizer, weights = "optimizer_state_dict", "fp32_flat_groups"
        sub_groups = [group["params"] for group in states[0][optimizer]["param_groups"]]
        groups = each_weight_cut(sizes, sub_groups, len(files), workers, limit)
    else:
        optimizer, weights = "base_optimizer_state", "single_partition_of_fp32_groups"
        gaps = states[0].get("param_alignment_paddings", [[]] * len(sizes))
        wholes = [sum(group) + sum(gap) for group, gap in zip(sizes, gaps, strict=True)]
        groups = all_weights_cut_together(wholes, len(files), workers)
        states[0]["group_paddings"] = [0] * len(groups)  # how much padding is left out
    state = _reshard(states, optimizer, weights, groups, rank)
    name = os.path.basename(names[0]).replace("_rank_0_mp", f"_rank_{rank}_mp")
    torch.save({**files[0], "optimizer_state_dict": state}, os.path.join(target, name))


def all_weights_cut_together(sizes: Sequence[int], old: int, new: int) -> list[list[list[Cut]]]:
    """Stages 1 and 2: for each parameter group of so many elements its one flat group, which is cut as a whole."""

    def width(size: int, workers: int) -> int:
        return _ALIGNMENT * math.ceil(size / (_ALIGNMENT * workers))

    return [[[Cut(size, width(size, old), width(size, new), index, 0)]] for index, size in enumerate(sizes)]


def each_weight_cut(
    sizes: Sequence[Sequence[int]], sub_groups: Sequence[Sequence[int]], old: int, new: int, limit: int
) -> list[list[list[Cut]]]:
    """Stage 3: for each parameter group the new sub-groups, and the weights in them.

    Args:
        sizes: Elements of the weights in each old sub-group.
        sub_groups: Numbers of the old sub-groups of each parameter group.
        old: Workers then.
        new: Workers now.
        limit: Elements of a worker after which a new sub-group begins, as in DeepSpeed.
    """
    param_groups = []
    for numbers in sub_groups:
        groups: list[list[Cut]] = [[]]
        for number in numbers:
            offset = 0
            for size in sizes[number]:
                if sum(cut.new for cut in groups[-1]) >= limit:
                    groups.append([])
                groups[-1].append(Cut(size, math.ceil(size / old), math.ceil(size / new), number, offset))
                offset += math.ceil(size / old)
        param_groups.append(groups)
    return param_groups


def reslice(cut: Cut, parts: Sequence[torch.Tensor], rank: int) -> torch.Tensor:
    """A worker's new slice of a tensor, padded with zeros, from every old worker's part of the tensor's flat group."""
    slice_ = parts[0].new_zeros(cut.new)
    at, end = rank * cut.new, min((rank + 1) * cut.new, cut.size)
    while at < end:
        owner, within = divmod(at, cut.old)
        count = min(end - at, cut.old - within)
        slice_.narrow(0, at - rank * cut.new, count).copy_(parts[owner].narrow(0, cut.offset + within, count))
        at += count
    return slice_


def _reshard(
    states: list[dict[str, Any]], optimizer: str, weights: str, param_groups: list[list[list[Cut]]], rank: int
) -> dict[str, Any]:
    """One worker's state of DeepSpeed's optimizer. `optimizer` and `weights`: its names for them at this stage."""
    old = [state[optimizer]["state"] for state in states]
    flat_weights: list[torch.Tensor] = []
    state: dict[int, dict[str, Any]] = {}
    numbered = []
    for settings, groups in zip(states[0][optimizer]["param_groups"], param_groups, strict=True):
        numbered.append({**settings, "params": list(range(len(state), len(state) + len(groups)))})
        for cuts in groups:
            flat_weights.append(_join(cuts, [each[weights] for each in states], rank))
            state[len(state)] = {
                name: _join(cuts, [_named(each, name) for each in old], rank)
                if _is_cut(name, value, max(cuts[0].old, states[0][weights][cuts[0].group].numel()))
                else copy.deepcopy(value)  # two sub-groups that shared one tensor would count each step twice
                for name, value in old[0].get(cuts[0].group, {}).items()
            }
    base = {**states[0][optimizer], "state": state, "param_groups": numbered}
    return {**states[0], optimizer: base, weights: flat_weights}


def _join(cuts: list[Cut], parts: list[Any], rank: int) -> torch.Tensor:
    """A flat group of one worker. `parts`: for every old worker, its part of each old group by the group's number."""
    with torch.no_grad():
        return torch.cat([reslice(cut, [part[cut.group] for part in parts], rank) for cut in cuts])


def _named(state: dict[int, dict[str, Any]], name: str) -> dict[int, Any]:
    return {number: values[name] for number, values in state.items() if name in values}


def _is_cut(name: str, value: Any, length: int) -> bool:
    """Whether a value of the optimizer's state is one number per weight; else it is the same for all workers."""
    if not torch.is_tensor(value) or value.dim() == 0:
        return False
    if value.shape != (length,):
        raise UserError(
            f"the optimizer's state `{name}` is not one number per weight, and fits only the number of workers that "
            "wrote it; resume with as many, or use adamw_torch"
        )
    return True


def _model_file(shards: str) -> str:
    return os.path.join(shards, f"zero_pp_rank_0_{_MODEL}" if cuts_each_weight(shards) else _MODEL)


def _rank(name: str) -> int:
    found = re.search(r"zero_pp_rank_(\d+)_", os.path.basename(name))
    assert found is not None
    return int(found[1])
