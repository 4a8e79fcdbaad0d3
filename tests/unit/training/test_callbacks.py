"""Checkpoints by time, and the counts of trained rows over restarts."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from transformers import TrainerState, TrainingArguments

from zephyr_ray.training.callbacks import CheckpointByTime, LogPace, ReportCheckpoint, ReportProgress, restore_seen


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


def test_rows_of_metrics_say_tokens_a_second_and_peak_memory() -> None:
    """40 tokens in 2 s are 20 a second. The first row has nothing before it, and one of an evaluation is none."""
    times = iter([10.0, 12.0, 13.0])
    pace = LogPace(clock=lambda: next(times))
    state = SimpleNamespace(log_history=[])
    seen = []
    for row in (
        {"loss": 1.0, "num_tokens": 10.0},
        {"loss": 1.0, "num_tokens": 50.0},
        {"eval_loss": 1.0},
        {"loss": 1.0},
    ):
        state.log_history.append({**row, "step": 1})
        logs = dict(row)
        pace.on_log(None, state, None, logs=logs)
        assert {**logs, "step": 1} == state.log_history[-1]  # what trackers get is what metrics.jsonl has
        seen.append(logs.pop("tokens_per_second", None))
    assert seen == [None, 20.0, None, None]
    assert [0 < row.get("peak_memory_gib", 0) < 1000 for row in state.log_history] == [True, True, False, True]


def test_the_terminal_hears_of_the_last_metrics() -> None:
    heard: list[dict[str, float]] = []
    progress = SimpleNamespace(set=lambda step, total=None, metrics=None: heard.append(dict(metrics or {})))
    report = ReportProgress(progress, {"eval_loss": "held-out loss"})
    for logs in (
        {"loss": 2.0, "learning_rate": 0.1, "num_tokens": 5000.0, "grad_norm": 1.0},
        {"loss": 1.0, "learning_rate": 0.2, "tokens_per_second": 200.0},
        {"eval_loss": 1.5, "eval_runtime": 1.0},
        {"train_runtime": 19.0},
    ):
        report.on_log(None, at(1), None, logs=logs)
    assert heard == [
        {"loss": 2.0, "lr": 0.1},
        {"loss": 1.0, "lr": 0.2, "tokens_per_second": 200.0},
        {"loss": 1.0, "lr": 0.2, "tokens_per_second": 200.0, "held-out loss": 1.5},
    ]
