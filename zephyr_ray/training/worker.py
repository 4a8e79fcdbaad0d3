"""What every Ray Train worker does, whatever the method: it builds the trainer, trains, resumes and exports."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import ray.train
import torch
from transformers import AutoConfig

from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.training import Training
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training import dataset as training_rows
from zephyr_ray.training import trackers
from zephyr_ray.training.arithmetic import arithmetic
from zephyr_ray.training.callbacks import (
    CheckpointBeforeLoss,
    CheckpointByTime,
    KeepTrackers,
    LogPace,
    ReportCheckpoint,
    ReportProgress,
    restore_seen,
    threads_for,
    tracker_folder,
    wait_until_stored,
)
from zephyr_ray.training.export import write_checkpoint
from zephyr_ray.training.held_out_evaluation import EvaluateHeldOut
from zephyr_ray.training.layers import RecomputeFirst, compile_layers
from zephyr_ray.training.methods import Method, method_of
from zephyr_ray.training.model import (
    adapter_base,
    check_caps_are_kept,
    device_for,
    is_adapter,
    load_model,
    lora_config,
    whole_weights,
    widen_trained,
)
from zephyr_ray.training.packed.attention import segment_multiple
from zephyr_ray.training.packed.backend import working_backend
from zephyr_ray.training.resume import for_these_workers
from zephyr_ray.training.reward_head import load_reward_model
from zephyr_ray.training.rewards import LoadReward, as_trl
from zephyr_ray.training.sampler import Plan, RankPlan
from zephyr_ray.training.scratch import own_folder
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.task import TrainJob
from zephyr_ray.training.token_batching import PackedRankPlan, rounded_up
from zephyr_ray.training.trl_config import training_arguments
from zephyr_ray.training.trl_trainers import PlannedMixin


def train(job: TrainJob) -> None:
    settings, training = job.settings, job.training
    device = device_for(training.gpus_per_worker, f"{job.stage}.training")
    if device == "cpu":
        threads_for(training.cpus_per_worker)
    folder = own_folder(job)
    trackers.prepare(tracker_folder(job, folder), training.report_to)
    try:
        trainer = _build_trainer(job, device, folder)
        checkpoint = ray.train.get_checkpoint() or _earlier_checkpoint(job)
        if checkpoint is None:
            trainer.train()
        else:
            with checkpoint.as_directory() as path:
                rank = ray.train.get_context().get_world_rank()
                trainer.seen = restore_seen(path, rank, len(trainer.rows))
                if trainer.held_out is not None:
                    trainer.held_out.restore(path)
                with for_these_workers(path, job.stage, training.zero_stage, settings.seed) as ours:
                    trainer.train(resume_from_checkpoint=ours)
        counts = _check_every_row_was_seen(trainer)
        weights = write_checkpoint(trainer, job, folder)
        if weights is not None:
            _write_metrics(trainer, job, counts, weights)
        if ray.train.get_context().get_local_rank() == 0:
            training_rows.forget(job.tokenized, *([job.held_out] if job.held_out else []))
        wait_until_stored()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _earlier_checkpoint(job: TrainJob) -> ray.train.Checkpoint | None:
    if job.resume_from is None:
        return None
    return ray.train.Checkpoint(job.resume_from, filesystem=job.output.run.filesystem)


def _build_trainer(job: TrainJob, device: str, folder: str) -> Any:
    """The trainer of this Ray Train worker, on the stage's rows, with the callbacks that talk to Ray."""
    settings, training = job.settings, job.training
    method = method_of(job.stage)
    load_rows = method.groups.load_rows if settings.grouped and method.groups else method.load_rows
    table = load_rows(settings.section, job.tokenized, job.reference_logps or job.preferences)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    if training.zero_stage > 0 and device == "cpu":
        _init_deepspeed_on_cpu()
    held_out = method.load_rows(settings.section, job.held_out, None) if job.held_out else None
    size = context.get_world_size()
    trainer = make_trainer(settings, job.model, table, folder, device, rank, size, held_out, job.reward)
    trainer.callback_handler.callbacks.insert(0, LogPace())  # before the trackers
    if job.nodes_may_go:
        trainer.add_callback(CheckpointBeforeLoss())
    if training.checkpoint_minutes is not None:
        trainer.add_callback(CheckpointByTime(training.checkpoint_minutes))
    trainer.add_callback(ReportCheckpoint(trainer))  # after those that ask for one
    if rank == 0 and not job.output.run.is_local:
        trainer.add_callback(KeepTrackers(job.output, tracker_folder(job, folder)))
    if rank == 0:
        trainer.add_callback(ReportProgress(job.progress, method.shown))
    return trainer


def make_trainer(
    settings: TrainingSettings,
    source: ModelSource,
    table: training_rows.Rows,
    folder: str,
    device: str,
    rank: int,
    world_size: int,
    held_out: training_rows.Rows | None = None,
    reward: LoadReward | None = None,
) -> Any:
    """The trainer of one rank. It needs torch's process group, where there are several, and no Ray."""
    method, section, model, seed = method_of(settings.method), settings.section, settings.model, settings.seed
    training = section.training
    plan = Plan(len(table), section.global_batch, section.epochs, seed, section.max_steps)
    packed = training.engine == "packed" and method.packs(section)
    trainers = method.trainers()
    kind = trainers.grouped if settings.grouped else trainers.packed if packed else trainers.padded
    if kind is None:
        raise UserError(f"{method.name}.training.engine=padded: {method.name} trains on packed rows only")
    computing, lora = arithmetic(model, training), model.lora
    dtype = getattr(torch, computing.dtype)
    weights = whole_weights(source.local(), source.revision)
    config = AutoConfig.from_pretrained(weights)
    rank_plan: PackedRankPlan | RankPlan
    if packed:
        backend = working_backend(training.packed_attention, device, config, dtype)
        align = segment_multiple(backend, dtype) if method.meets_a_reference else 1
        rank_plan = packed_plan(plan, rank, world_size, table, training, method, align)
    else:
        check_caps_are_kept(config, model.attn_implementation)
        if method.rank_plan:
            rank_plan = method.rank_plan(section, len(table), seed, rank, world_size)
        else:
            rank_plan = RankPlan(plan, rank, world_size, training.micro_batch)
    # Before the configuration, too: under ZeRO-3 every model that is loaded after it is sharded.
    rewarded = {"reward_funcs": as_trl(reward(device))} if reward else {}
    # Before the model is loaded: under ZeRO-3 its weights are then read in shards.
    args = training_arguments(method, trainers.config, section, rank_plan, seed, folder, device, dtype)
    stored = getattr(torch, computing.weights)
    trainer = kind(
        model=load_reward_model(weights, model, stored, seed)
        if method.makes_reward_model
        else load_model(weights, model, stored, quantize=lora is not None and lora.load_in_4bit),
        args=args,
        train_dataset=table.table,
        processing_class=load_tokenizer(source.local(), settings.chat, source.revision),
        peft_config=lora_config(lora) if lora else None,
        **rewarded,
    )
    trainer.section = section
    if training.zero_stage == 0:
        widen_trained(trainer.model)
    if training.recomputed_layers:
        field = f"{settings.method}.training.gradient_checkpointing"
        trainer.add_callback(RecomputeFirst(trainer.model, training.recomputed_layers, field))
    if training.compile:
        compile_layers(trainer.model)
    if packed:
        trainer.follow(table, rank_plan, backend, align)
    else:
        trainer.follow(table, rank_plan)
    if held_out is not None:
        asked = method.eval_steps(section) if method.eval_steps else None
        once = Plan(len(held_out), section.global_batch, 1, seed)
        if packed:
            part: PackedRankPlan | RankPlan = packed_plan(once, rank, world_size, held_out, training, method, align)
        else:
            part = RankPlan(once, rank, world_size, training.micro_batch)
        trainer.held_out = EvaluateHeldOut(trainer, held_out, part, asked or plan.steps_per_epoch)
        trainer.add_callback(trainer.held_out)
    for guard in method.guards(trainer, settings, computing.dtype):
        trainer.add_callback(guard)
    return trainer


def packed_plan(
    plan: Plan, rank: int, world_size: int, rows: training_rows.Rows, training: Training, method: Method, align: int = 1
) -> PackedRankPlan:
    """The plan of a rank by the lengths of all rows, each filled up to a multiple of `align`.

    Raises:
        UserError: A row is larger than the budget, and the recipe refuses that.
    """
    lengths, budget = rows.packed_lengths(), training.tokens_per_micro_batch
    larger = int((lengths > budget).sum())
    if larger and training.oversized == "refuse":
        fields = f"{method.name}.training"
        raise UserError(
            f"{larger} rows are larger than {fields}.tokens_per_micro_batch={budget} (the largest has "
            f"{lengths.max()} tokens); raise it, lower {method.length_field}, or set {fields}.oversized=alone"
        )
    return PackedRankPlan(plan, rank, world_size, rounded_up(lengths, align), budget, rows.loss_weights())


def _init_deepspeed_on_cpu() -> None:
    """DeepSpeed over gloo alone.

    Its shared-memory all-reduce would be compiled at the first start (about 40 s) and ZeRO does not use it: sharded
    training gathers and scatters, which gloo does.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo")


def _check_every_row_was_seen(trainer: PlannedMixin) -> np.ndarray:
    """Exactly-once: how often each row was trained on, over all workers and restarts, is what the plan says."""
    seen = torch.from_numpy(trainer.seen)
    if torch.distributed.is_initialized():
        seen = seen.to(trainer.accelerator.device)  # type: ignore[attr-defined]
        torch.distributed.all_reduce(seen)
    expected = trainer.rank_plan.plan.times_seen()
    if not np.array_equal(seen.cpu().numpy(), expected):
        wrong = int((seen.cpu().numpy() != expected).sum())
        raise RuntimeError(f"{wrong} of {len(expected)} rows were not trained on as often as the plan says")
    return expected


def _write_metrics(trainer: Any, job: TrainJob, counts: np.ndarray, weights: str) -> None:
    """metrics.jsonl, one line for each logged step; trained.json, how often the rows were trained on, the identity of
    the weights, the base model of an adapter that training began with, and the losses on rows that are held out."""
    output, start = job.output, job.model.local()
    times = {"fewest_times": int(counts.min()), "most_times": int(counts.max())}
    trained = {"rows": len(counts), **times, "weights": weights}
    if is_adapter(start):
        trained["adapter_of"] = adapter_base(start)
    if trainer.held_out is not None:
        trained["held_out"] = trainer.held_out.summary()
    output.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in trainer.state.log_history))
    output.write_text(output.new_name("trained.json"), json.dumps(trained) + "\n")
