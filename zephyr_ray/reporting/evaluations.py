"""What the evaluations of a run measured, as estimates with 95 % intervals, in one form whoever wrote them.

Read are `summary.json` of the stages under `evaluation/`, and the manifests of evaluations that are functions of a
user's own. An estimate is an object with `low` and `high` and a `mean` or `value`; or with `interval`, [low, high], and
a number; or numbers beside `intervals`, which names them (`mt_bench.as_json`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zephyr_ray.reporting.run_stages import MadeStage

_RATES = ("win_rate_adjusted", "win_rate")
_VALUES = ("value", "mean", *_RATES, "average")
_IN_PERCENT = "alpaca_eval"
"""In the name of a stage: its win rates are in percent, as on AlpacaEval's leaderboard."""
_OF_THE_RUNNER = frozenset(
    {"files", "counts", "config", "environment", "code", "commits", "inputs", "watched", "lines", "stats", "seconds"}
)
_MEASURES = {
    "implicit_reward_accuracy": 0.5,
    "implicit_reward_margin": 0.0,
    "policy_minus_reference": 0.0,
    "reward_accuracy": 0.5,
    "reward_margin": 0.0,
    "overconfidence": 0.0,
}
"""Those of evaluations on held-out pairs that claim something, and what they are where nothing was learnt."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    stage: str
    what: str
    value: float
    low: float
    high: float
    model: str = ""
    """Empty where it is of no single model."""
    neutral: float | None = None
    """The value that says that there is no difference; None where it compares nothing."""
    is_share: bool = False

    def show(self, number: float) -> str:
        if not self.is_share:
            return f"{number:.3g}" if abs(number) < 100 else f"{number:,.1f}"
        return f"{100 * number:+.1f} %" if self.neutral == 0 else f"{100 * number:.1f} %"

    @property
    def shown(self) -> str:
        return self.show(self.value)

    @property
    def shown_interval(self) -> str:
        return f"{self.show(self.low)} to {self.show(self.high)}"


@dataclass(frozen=True)
class Duel:
    """Comparisons of two models' answers to the same prompts."""

    first: str
    second: str
    rate: float
    """The first model's wins and half the ties, as a share."""


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation measured."""

    stage: str
    estimates: list[Estimate]
    categories: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mean score by model and category, on MT-Bench's scale of 1 to 10; empty without categories."""
    duels: list[Duel] = field(default_factory=list)
    text: str = ""
    """The evaluation's own table."""
    problem: str | None = None
    """Why its results cannot be read."""

    @property
    def differences(self) -> list[Estimate]:
        return [each for each in self.estimates if each.neutral is not None]

    def by_measure(self) -> dict[str, list[Estimate]]:
        """Estimates of several models, by what was measured."""
        found: dict[str, list[Estimate]] = {}
        for each in self.estimates:
            if each.model and each.neutral is None:
                found.setdefault(each.what, []).append(each)
        return found


def evaluations(stages: Sequence[MadeStage]) -> list[Evaluated]:
    """What the finished evaluations of a round measured."""
    return [_read(stage) for stage in stages if stage.is_finished and is_evaluation(stage)]


def is_evaluation(stage: MadeStage) -> bool:
    """Whether the stage's results are numbers about models."""
    config = stage.manifest.get("config")
    return stage.name.startswith("evaluation/") or (isinstance(config, dict) and "evaluation" in config)


def _read(stage: MadeStage) -> Evaluated:
    manifest = stage.manifest
    text = "\n".join(str(line) for line in manifest.get("lines", ()))
    try:
        summary = stage.artifact.read_json("summary.json")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return Evaluated(stage.name, [], text=text, problem=f"summary.json is no JSON ({error}); make the stage anew")
    if summary is None:
        summary = {name: value for name, value in manifest.items() if name not in _OF_THE_RUNNER}
    return evaluated(stage.name, summary, text)


def evaluated(stage: str, summary: Any, text: str = "") -> Evaluated:
    """What a summary says.

    Args:
        stage: The evaluation's name.
        summary: Its `summary.json`, or its own part of the manifest.
        text: Its table.
    """
    found = [_estimate(stage, path, *numbers) for path, numbers in _walk(summary)]
    models = summary.get("models") if isinstance(summary, dict) else None
    categories = {
        str(model): {str(name): float(mean) for name, mean in each["categories"].items() if _is_number(mean)}
        for model, each in (models.items() if isinstance(models, dict) else ())
        if isinstance(each, dict) and each.get("categories")
    }
    return Evaluated(stage, found, categories, list(_duels(summary, 100 if _IN_PERCENT in stage else 1)), text)


def _walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], tuple[float, float, float]]]:
    """Every estimate in a JSON value, with its place."""
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from _walk(each, (*path, _name_of(each) or str(number)))
    if not isinstance(value, dict):
        return
    numbers = _numbers(value)
    if numbers is not None:
        yield path or tuple(filter(None, [_name_of(value)])), numbers
    intervals = value.get("intervals")
    for name, interval in intervals.items() if isinstance(intervals, dict) else ():
        if _is_interval(interval) and _is_number(value.get(name)):
            yield (*path, name), (float(value[name]), *map(float, interval))  # type: ignore[misc]
    for name, each in value.items():
        yield from _walk(each, (*path, str(name)))


def _numbers(value: Mapping[str, Any]) -> tuple[float, float, float] | None:
    number = next((float(value[name]) for name in _VALUES if _is_number(value.get(name))), None)
    if number is None:
        return None
    if _is_number(value.get("low")) and _is_number(value.get("high")):
        return number, float(value["low"]), float(value["high"])
    interval = value.get("interval")
    if isinstance(interval, list) and _is_interval(interval):
        return number, float(interval[0]), float(interval[1])
    return None


def _estimate(stage: str, path: Sequence[str], value: float, low: float, high: float) -> Estimate:
    model, what = _model_and_measure(path)
    percent = _IN_PERCENT in stage or value > 1.5 or high > 1.5 or low < -1.5
    neutral = _MEASURES.get(what.replace(" ", "_"))
    is_share = not percent and any(word in what for word in ("accuracy", "rate", "minus"))
    if "minus" in what or "difference" in what:
        neutral = 0.0
    elif any(word in what for word in ("win rate", " against ", "length controlled")):
        neutral, is_share = (50.0, False) if percent else (0.5, True)
    return Estimate(stage, what, value, low, high, model, neutral, is_share)


def _model_and_measure(path: Sequence[str]) -> tuple[str, str]:
    """The model that a place names, if any, and what is measured there: `models.NAME.average`, `pass_rate.NAME`."""
    names = [name for name in path if name not in ("measures", "estimates", "pairs")]
    if len(names) >= 2 and names[0] == "models":
        return names[1], " ".join(names[2:]).replace("_", " ") or "win rate"
    if len(names) == 2 and names[0] != "categories":
        return names[1], names[0].replace("_", " ")
    return "", " ".join(names).replace("_", " ") or "win rate"


def _duels(value: Any, whole: float) -> Iterator[Duel]:
    """Every record of one model against another in a JSON value; `whole` is the rate of who wins always."""
    names = _names(value)
    rate = next((value[name] for name in _RATES if names and _is_number(value.get(name))), None)
    if names and rate is not None:
        yield Duel(*names, float(rate) / whole)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _duels(each, whole)


def _names(value: Any) -> tuple[str, str] | None:
    for first, second in (("model_1", "model_2"), ("a", "b"), ("model_a", "model_b"), ("model", "baseline")):
        if isinstance(value, dict) and isinstance(value.get(first), str) and isinstance(value.get(second), str):
            return value[first], value[second]
    return None


def _name_of(value: Any) -> str | None:
    names = _names(value)
    return f"{names[0]} against {names[1]}" if names else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
