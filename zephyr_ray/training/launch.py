"""Runs a training on Ray Train workers, which are replaced when they are lost, and returns its manifest."""

from __future__ import annotations

import os
import posixpath
from dataclasses import replace
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import ScalingConfig

from zephyr_ray.cluster import connect
from zephyr_ray.config.training import Training
from zephyr_ray.errors import UserError
from zephyr_ray.training import held_out_loss, state
from zephyr_ray.training.task import TrainJob, train_worker

_ALLOCATOR = "PYTORCH_ALLOC_CONF"  # PYTORCH_CUDA_ALLOC_CONF before torch 2.9


def train(job: TrainJob) -> dict[str, Any]:
    """Trains, exports, and returns the stage's part of the manifest.

    Raises:
        UserError: What a worker found that a user can mend.
        KeyboardInterrupt: Training was stopped before its last step.
    """
    output, model, progress = job.output, job.model, job.progress
    fit(job)
    failure = progress.read()["failure"]
    if failure is not None:
        raise UserError(failure)
    trained = output.read_json(output.new_name("trained.json"))
    if trained is None:  # Ray Train ends an aborted run (Ctrl-C) as if it were finished
        raise KeyboardInterrupt
    weights, held_out = trained.pop("weights", None), trained.pop("held_out", None)
    adapter_of = trained.pop("adapter_of", None)
    evaluated = {}
    if held_out is not None:
        told = {"lines": held_out_loss.lines(job.stage, held_out), "alarms": held_out_loss.alarms(job.stage, held_out)}
        evaluated = {"held_out": held_out, **told}
    return {
        "files": [],
        "checkpoint": output.new_checkpoint(),
        "weights": weights,
        "temporary": [] if job.training.keep_checkpoints else [state.FOLDER],
        "trained": trained,
        **evaluated,
        "model": {
            "path": model.path,
            "revision": model.revision,
            "fingerprint": model.fingerprint,
            **({"adapter_of": adapter_of} if adapter_of else {}),
        },
        "metrics": progress.read()["metrics"],
    }


def fit(job: TrainJob) -> None:
    """Trains to the end. A training that was interrupted goes on from its last checkpoint.

    Raises:
        ray.train.TrainingFailedError: Workers failed more often than `training.max_failures`.
    """
    output, training = job.output, job.training
    job = replace(job, resume_from=state.last_checkpoint(output))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=scaling(training),
        torch_config=TorchConfig(backend="nccl" if training.gpus_per_worker else "gloo"),
        run_config=RunConfig(  # type: ignore[call-arg]  # whose types are those of Ray Train before its second version
            name=state.own_name(output),
            storage_path=posixpath.join(output.path, state.FOLDER),
            storage_filesystem=output.run.filesystem,
            failure_config=FailureConfig(max_failures=training.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            worker_runtime_env={"env_vars": environment(training)},
        ),
    )
    trainer.fit()


def environment(training: Training) -> dict[str, str]:
    """What a worker's environment has before it starts.

    Packed rows have another length in every micro-batch. torch's blocks of fixed sizes would leave ever more gaps
    between them; segments that grow do not. Who has set the variable keeps his value.
    """
    if not training.gpus_per_worker:
        return {}
    return {_ALLOCATOR: os.environ.get(_ALLOCATOR, "expandable_segments:True")}


def scaling(training: Training) -> ScalingConfig:
    """The workers that the recipe asks Ray for: a number, or as many as there is room for."""
    resources = {"CPU": training.cpus_per_worker}
    if training.gpus_per_worker:
        resources["GPU"] = training.gpus_per_worker
    return ScalingConfig(
        num_workers=training.workers,
        use_gpu=training.gpus_per_worker > 0,
        resources_per_worker=resources,
        label_selector=connect.selector(training.labels) or None,
    )
