"""A stage's progress in words: how many, how fast, how long, and its metrics."""

from __future__ import annotations

from zephyr_ray.pipeline.events import StageProgress

_LABELS = {"usd": "US$", "tokens_per_second": "tokens/s"}

_ON_THE_WAY = ("lr", "tokens_per_second")


def parts(progress: StageProgress) -> list[str]:
    """Of a stage that runs: 12/80 rows, 3.1/s, 0:22 left, loss 0.69."""
    if not progress.rows and not progress.metrics:
        return ["starting"]
    found = [counted(progress)]
    if progress.rate is not None:
        found.append(_rate(progress.rate))
    if progress.seconds_left is not None:
        found.append(f"{clock(progress.seconds_left)} left")
    return found + metrics(progress)


def counted(progress: StageProgress) -> str:
    of = f"/{progress.total:,}" if progress.total else ""
    return f"{progress.rows:,}{of} {progress.unit}"


def metrics(progress: StageProgress, ended: bool = False) -> list[str]:
    """Each with its name; of a stage that has ended those that say what came of it."""
    shown = {name: value for name, value in progress.metrics.items() if not ended or name not in _ON_THE_WAY}
    return [f"{_LABELS.get(name, name)} {_number(value)}" for name, value in shown.items()]


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(a_second: float) -> str:
    return f"{a_second:,.1f}/s" if a_second >= 1 else f"{60 * a_second:,.1f}/min"


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
