"""Resuming from a checkpoint that any number of workers wrote, with this number of them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import ray.train
import ray.train.collective
from transformers import set_seed

from zephyr_ray.errors import UserError
from zephyr_ray.training import zero_resharding

_RANDOM_STATE = "rng_state"


@contextmanager
def for_these_workers(checkpoint: str, stage: str, zero_stage: int, seed: int) -> Iterator[str]:
    """The checkpoint itself, where as many workers wrote it as there are; else a folder made from it, gone afterwards.

    All workers take part. Those of a machine share the folder: links to what is the same for any number of workers,
    and ZeRO's shards cut anew.

    Raises:
        UserError: The checkpoint's shards are not of this ZeRO stage, or cannot be cut anew.
    """
    check_zero_stage(checkpoint, stage, zero_stage)
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    if written_by(checkpoint) == workers:
        yield checkpoint
        return
    token = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    folder = os.path.join(tempfile.gettempdir(), f"zephyr-ray-resume-{token}")
    try:
        first = context.get_local_rank() == 0
        prepare(checkpoint, folder, rank, workers, first_of_machine=first)
        ray.train.collective.barrier()
        set_seed(new_seed(checkpoint, seed, rank))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(checkpoint: str, folder: str, rank: int, workers: int, *, first_of_machine: bool) -> None:
    """Writes one worker's part of a folder to resume from."""
    os.makedirs(folder, exist_ok=True)
    shards = zero_resharding.shard_folder(checkpoint)
    if first_of_machine:
        _link_rest(checkpoint, folder)
    if shards is None:
        return
    target = os.path.join(folder, os.path.basename(shards))
    os.makedirs(target, exist_ok=True)
    if first_of_machine or zero_resharding.cuts_each_weight(shards):
        zero_resharding.write_weights(shards, target, rank, workers)
    zero_resharding.write_optimizer(shards, target, rank, workers)


def check_zero_stage(checkpoint: str, stage: str, zero_stage: int) -> None:
    """Not every stage goes on from every other's shards.

    Raises:
        UserError: Naming the stage that the checkpoint was written under.
    """
    shards = zero_resharding.shard_folder(checkpoint)
    written = "0" if shards is None else zero_resharding.stages_that_read(shards)
    if str(zero_stage) not in written:
        raise UserError(
            f"{stage}.training.zero_stage={zero_stage}: this training was begun with {written} and goes on with that "
            f"only; set it back, or delete {stage}/training_state to begin anew"
        )


def written_by(checkpoint: str) -> int:
    """How many workers wrote a checkpoint: each left its count of trained rows."""
    return sum(name.startswith("seen_") for name in os.listdir(checkpoint))


def new_seed(checkpoint: str, seed: int, rank: int) -> int:
    """Seeds dropout where no worker's own random state can be taken up: another one for every step and worker."""
    with open(os.path.join(checkpoint, "trainer_state.json"), encoding="utf-8") as stream:
        step = json.load(stream)["global_step"]
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _link_rest(checkpoint: str, folder: str) -> None:
    """Links to all files but the shards and the workers' random states, which are of workers that are no more."""
    for entry in os.scandir(checkpoint):
        if entry.is_file() and not entry.name.startswith(_RANDOM_STATE):
            os.symlink(os.path.abspath(entry.path), os.path.join(folder, entry.name))
