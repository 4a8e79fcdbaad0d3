"""What lm-evaluation-harness found, with intervals: a table for a person, and numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.evaluation.intervals import mean_interval
from zephyr_ray.evaluation.recorded_files import number

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Metric:
    """A metric of a task, as lm-eval has it."""

    value: float
    standard_error: float | None
    interval: Interval
    """95 %, by a bootstrap over questions; None where the value is no mean over them."""
    items: tuple[float, ...]
    """Of each question; () where the value is no mean over them."""


@dataclass(frozen=True)
class TaskResult:
    """A task, or the error in its place."""

    name: str
    metrics: Mapping[str, Metric]
    n: int
    questions: int
    """How many the task has; `--limit` asks fewer."""
    num_fewshot: int | None
    version: Any
    error: str | None = None


def task_results(event: Mapping[str, Any]) -> list[TaskResult]:
    """The tasks of a `task` event of `runners.run_lm_eval`: one, or those of a group or tag."""
    if "error" in event:
        return [TaskResult(event["name"], {}, 0, 0, None, None, event["error"])]
    return [_task_result(name, event) for name in event["samples"]]


def group_numbers(event: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """lm-eval's own aggregates of groups of tasks; null where there is no finite number."""
    groups: Mapping[str, Mapping[str, Any]] = event.get("groups", {})
    return {name: {key: number(value) for key, value in found.items() if "," in key} for name, found in groups.items()}


def average(results: Sequence[TaskResult]) -> tuple[dict[str, Metric], str | None]:
    """The metrics that all tasks have, as means over all questions; and why there is none.

    The mean over questions is that of MMLU's authors; lm-eval calls it weighted by size.
    """
    failed = sum(result.error is not None for result in results)
    if failed:
        return {}, f"{failed} of {len(results)} tasks have no result"
    if len(results) < 2:
        return {}, "there is one task"
    shared = set.intersection(*({name for name, m in result.metrics.items() if m.items} for result in results))
    names = [name for name in results[0].metrics if name in shared]
    if not names:
        return {}, "the tasks share no metric that is a mean over questions"
    return {name: _pooled([result.metrics[name] for result in results]) for name in names}, None


def as_json(results: Sequence[TaskResult]) -> dict[str, Any]:
    """The results as `--json` writes them; accuracies are shares, as lm-eval's."""
    means, reason = average(results)
    tasks = {result.name: _task_json(result) for result in results}
    return {
        "average": {name: _metric_json(metric) | {"n": len(metric.items)} for name, metric in means.items()} or None,
        "average_reason": reason,
        "tasks": tasks,
        "failed": sum(result.error is not None for result in results),
    }


def table_lines(results: Sequence[TaskResult]) -> list[str]:
    """The results for a person."""
    rows: list[tuple[str, ...]] = [("task", "metric", "value", "standard error", "95 % interval", "few-shot", "n")]
    rows += [row for result in results for row in _rows(result)]
    means, reason = average(results)
    n = f"{sum(result.n for result in results)} of {sum(result.questions for result in results)}"
    rows += [("average", name, *_numbers(metric), "", n) for name, metric in means.items()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{result.name}: {result.error}" for result in results if result.error]
    return lines + ([f"no average: {reason}"] if reason and len(results) > 1 else [])


def _task_result(name: str, event: Mapping[str, Any]) -> TaskResult:
    found, samples, counts = event["results"][name], event["samples"][name], event["n-samples"][name]
    broken = _not_finite(samples)
    metrics = {} if broken else dict(_metrics(found, samples))
    return TaskResult(
        name=name,
        metrics=metrics,
        n=counts["effective"],
        questions=counts["original"],
        num_fewshot=event["n-shot"].get(name),
        version=event["versions"].get(name),
        error=f"{broken} questions have a log-likelihood that is no finite number" if broken else None,
    )


def _metrics(found: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Metric]]:
    """lm-eval's keys are `METRIC,FILTER` and `METRIC_stderr,FILTER`; `none` is no filter, and left out of the names."""
    for key, value in found.items():
        metric, comma, chosen = key.partition(",")
        plain = number(value)
        if not comma or metric.endswith("_stderr") or plain is None:
            continue
        items = [number(sample.get(metric)) for sample in samples if sample.get("filter") == chosen]
        known = tuple(item for item in items if item is not None)
        is_mean = len(known) == len(items) > 0 and math.isclose(statistics.fmean(known), plain, abs_tol=1e-9)
        name = metric if chosen == "none" else key
        yield (
            name,
            Metric(
                plain,
                number(found.get(f"{metric}_stderr,{chosen}")),
                mean_interval(known, range(len(known))) if is_mean else None,
                known if is_mean else (),
            ),
        )


def _not_finite(samples: Sequence[Mapping[str, Any]]) -> int:
    """Questions with a log-likelihood of NaN or infinity."""
    return sum(
        any(isinstance(value, float) and not math.isfinite(value) for value in _flat(sample["filtered_resps"]))
        for sample in samples
    )


def _flat(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _pooled(metrics: Sequence[Metric]) -> Metric:
    items = tuple(item for metric in metrics for item in metric.items)
    error = statistics.stdev(items) / math.sqrt(len(items)) if len(items) > 1 else None
    return Metric(statistics.fmean(items), error, mean_interval(items, range(len(items))), items)


def _task_json(result: TaskResult) -> dict[str, Any]:
    return {
        "metrics": {name: _metric_json(metric) for name, metric in result.metrics.items()} or None,
        "n": result.n,
        "questions": result.questions,
        "num_fewshot": result.num_fewshot,
        "version": result.version,
        "error": result.error,
    }


def _metric_json(metric: Metric) -> dict[str, Any]:
    return {"value": metric.value, "standard_error": metric.standard_error, "interval": metric.interval}


def _rows(result: TaskResult) -> list[tuple[str, ...]]:
    shots = "-" if result.num_fewshot is None else str(result.num_fewshot)
    n = f"{result.n} of {result.questions}"
    if result.error:
        return [(result.name, "no result", "-", "-", "-", shots, "-")]
    return [(result.name, name, *_numbers(metric), shots, n) for name, metric in result.metrics.items()]


def _numbers(metric: Metric) -> tuple[str, str, str]:
    error = "-" if metric.standard_error is None else f"{metric.standard_error:.4f}"
    interval = f"{metric.interval[0]:.4f} to {metric.interval[1]:.4f}" if metric.interval else "-"
    return f"{metric.value:.4f}", error, interval
