"""How the trainings of a run went: metrics.jsonl as curves, thinned to what a page can show."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zephyr_ray.reporting.run_stages import MadeStage

METRICS = "metrics.jsonl"
MOST_POINTS = 200
"""Of a curve; more are averaged."""


@dataclass(frozen=True)
class Panel:
    """What is drawn together."""

    title: str
    axis: str
    """What the vertical axis is, with its unit."""
    metrics: tuple[tuple[str, str], ...]
    """(name in metrics.jsonl, name for a person)."""


PANELS = (
    Panel("Loss", "loss, nats", (("loss", "training"), ("eval_loss", "held out"))),
    Panel("Reward margin", "beta times nats", (("rewards/margins", "margin"),)),
    Panel("Reward accuracy", "share of pairs", (("rewards/accuracies", "accuracy"), ("accuracy", "accuracy"))),
    Panel("Rewards of a reward model", "logits", (("margin", "chosen - rejected"), ("mean_reward", "mean"))),
    Panel("Log-probs", "nats of a completion", (("logps/chosen", "chosen"), ("logps/rejected", "rejected"))),
    Panel("Implicit rewards", "beta times nats", (("rewards/chosen", "chosen"), ("rewards/rejected", "rejected"))),
    Panel("Reward of own completions", "the judge's scale", (("reward", "mean"), ("reward_std", "deviation"))),
    Panel("KL from the model it started from", "nats of a token", (("kl", "KL"),)),
    Panel("Length of own completions", "tokens", (("completions/mean_length", "mean"),)),
    Panel("Entropy", "nats of a token", (("entropy", "entropy"),)),
    Panel("Gradient norm", "norm", (("grad_norm", "gradient norm"),)),
    Panel("Speed", "tokens a second, all workers", (("tokens_per_second", "tokens a second"),)),
    Panel("Memory", "GiB at the peak, first worker", (("peak_memory_gib", "memory"),)),
    Panel("Learning rate", "learning rate", (("learning_rate", "learning rate"),)),
)

Row = Mapping[str, float]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Training:
    """The metrics of one training."""

    stage: str
    rows: list[Row]
    """One for each logged step; without the last one, which sums up."""
    summary: Row
    """What the last row says of all steps: `train_runtime` in seconds, `train_loss` ..."""
    beta: float | None = None
    problem: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Of the whole training; None where its last row does not say."""
        tokens = next((row["num_tokens"] for row in reversed(self.rows) if "num_tokens" in row), None)
        tokens = self.summary.get("num_tokens", tokens)
        seconds = self.summary.get("train_runtime")
        return tokens / seconds if tokens and seconds else None


def trainings(stages: Sequence[MadeStage]) -> list[Training]:
    """The finished trainings of a round."""
    return [_read(stage) for stage in stages if stage.manifest.get("trained")]


def points(training: Training, metric: str) -> Points:
    """(step, value) of a metric, finite ones only, at most `MOST_POINTS`: more are averaged in groups of neighbours."""
    found = [
        (float(row["step"]), float(row[metric]))
        for row in training.rows
        if metric in row and "step" in row and math.isfinite(row[metric])
    ]
    width = math.ceil(len(found) / MOST_POINTS) or 1
    groups = [found[start : start + width] for start in range(0, len(found), width)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _read(stage: MadeStage) -> Training:
    artifact = stage.artifact
    section = stage.manifest.get("config", {}).get(stage.name.rpartition("/")[2], {})
    beta = section.get("beta") if isinstance(section, dict) else None
    path = posixpath.join(artifact.path, METRICS)
    try:
        with artifact.run.filesystem.open_input_stream(path) as stream:
            rows = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
    except FileNotFoundError:
        return Training(stage.name, [], {}, beta, f"{METRICS} is not there")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return Training(stage.name, [], {}, beta, f"{METRICS} cannot be read: {error}")
    logged = [row for row in rows if "train_runtime" not in row]
    return Training(stage.name, logged, next((row for row in rows if "train_runtime" in row), {}), beta)
