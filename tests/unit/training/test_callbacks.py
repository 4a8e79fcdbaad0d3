"""Checkpoints by time, and the counts of trained rows over restarts."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from transformers import TrainerState, TrainingArguments

from zephyr_ray.training.callbacks import CheckpointByTime, ReportCheckpoint, ReportProgress, restore_seen


def at(step: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step)


def test_counts_of_all_ranks_go_to_rank_zero_at_any_world_size(tmp_path: Path) -> None:
    np.save(tmp_path / "seen_0.npy", np.array([1, 0, 2]))
    np.save(tmp_path / "seen_1.npy", np.array([0, 1, 0]))
    assert restore_seen(str(tmp_path), 0, 3).tolist() == [1, 1, 2]
    assert restore_seen(str(tmp_path), 1, 3).tolist() == [0, 0, 0]


def by_time(seconds: list[float], by_steps: int = 1000) -> tuple[list[int], int]:
    """Steps that take so long, on two ranks whose clocks differ, and a minute between checkpoints -> the steps that one
    comes after, and how often the ranks looked at the clock."""
    told: list[tuple[bool, int]] = []
    now = 0.0
    first = CheckpointByTime(1, share=lambda own: told.append(own) or own, clock=lambda: now)
    second = CheckpointByTime(1, share=lambda own: told[-1], clock=lambda: 3 * now + 1e6)
    saved: list[list[int]] = [[], []]
    for rank in (first, second):
        rank.on_train_begin(None, at(0), None)
    for step, took in enumerate(seconds, start=1):
        now += took
        for rank, steps in zip((first, second), saved, strict=True):
            control = SimpleNamespace(should_save=step % by_steps == 0)
            rank.on_step_end(None, at(step), control)
            if control.should_save:
                steps.append(step)
                rank.on_save(None, at(step), control)
    assert saved[0] == saved[1]
    return saved[0], len(told)


def test_checkpoints_by_time_come_when_they_are_due_and_the_clock_is_looked_at_seldom() -> None:
    saved, looks = by_time([0.5] * 500)
    assert saved == [120, 240, 360, 480]
    assert looks <= 45


def test_steps_longer_than_the_time_between_checkpoints_bring_one_each() -> None:
    assert by_time([61.0] * 3)[0] == [1, 2, 3]


def test_steps_that_grow_longer_delay_a_checkpoint_a_little() -> None:
    seconds = [0.1] * 200 + [0.3] * 400
    assert 60 <= sum(seconds[: by_time(seconds)[0][0]]) < 90


def test_a_checkpoint_by_steps_counts_for_the_time() -> None:
    assert by_time([0.5] * 260, by_steps=100)[0] == [100, 200]


def test_a_training_that_goes_on_saves_and_logs_as_often_as_the_recipe_says_now(tmp_path: Path) -> None:
    state = TrainerState(global_step=4, max_steps=100, save_steps=2, logging_steps=2)
    args = TrainingArguments(output_dir=str(tmp_path), save_steps=30, logging_steps=5, use_cpu=True)
    ReportCheckpoint(SimpleNamespace()).on_train_begin(args, state, None)
    assert (state.save_steps, state.logging_steps) == (30, 5)


def test_the_terminal_hears_of_the_last_metrics_and_of_tokens_a_second_between_two_logs() -> None:
    heard: list[dict[str, float]] = []
    now = 0.0
    progress = SimpleNamespace(set=lambda step, total=None, metrics=None: heard.append(dict(metrics or {})))
    report = ReportProgress(progress, {"eval_loss": "held-out loss"}, clock=lambda: now)
    for now, logs in (  # noqa: B007  # the clock reads it
        (10.0, {"loss": 2.0, "learning_rate": 0.1, "num_tokens": 5000.0, "grad_norm": 1.0}),
        (14.0, {"loss": 1.0, "learning_rate": 0.2, "num_tokens": 5800.0}),
        (15.0, {"eval_loss": 1.5, "eval_runtime": 1.0}),
        (18.0, {"loss": 0.5, "learning_rate": 0.1, "num_tokens": 6000.0}),
        (19.0, {"train_runtime": 19.0}),
    ):
        report.on_log(None, at(1), None, logs=logs)
    assert heard == [
        {"loss": 2.0, "lr": 0.1},  # the first count may be a checkpoint's
        {"loss": 1.0, "lr": 0.2, "tokens_per_s": 200.0},
        {"loss": 1.0, "lr": 0.2, "tokens_per_s": 200.0, "held-out loss": 1.5},
        {"loss": 0.5, "lr": 0.1, "tokens_per_s": 50.0, "held-out loss": 1.5},
    ]
