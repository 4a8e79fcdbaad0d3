"""Runs the package alpaca_eval in a process of its own, in another Python environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import runner_process
from zephyr_ray.evaluation.alpaca_eval_pairs import Pairs
from zephyr_ray.evaluation.recorded_files import Row
from zephyr_ray.pipeline.fingerprints import content_id, fingerprint_files

INSTALL = "make an environment of its own: python -m venv DIR, then DIR/bin/pip install alpaca_eval"
_RUNNER = "run_alpaca_eval.py"


@dataclass(frozen=True)
class Judge:
    """Who compares the answers."""

    annotators_config: str
    """A folder with configs.yaml, such a file, or a name of the package's own."""
    model: str | None
    """The model that is asked, in the place of the config's."""
    base_url: str | None
    """None for the address that the package has."""
    key: str | None
    concurrency: int

    @property
    def identity(self) -> str:
        """A hash of what decides a judgment, as far as it is known here."""
        place = Path(self.annotators_config)
        config = fingerprint_files([str(place)]) if place.exists() else self.annotators_config
        return content_id(config, self.model, self.base_url)


@dataclass(frozen=True)
class Outcome:
    """What the package made of the pairs or annotations."""

    annotations: list[Row]
    failures: dict[str, int]
    """Requests without a judgment, by the reason."""
    versions: dict[str, str]
    win_rate: dict[str, Any] | None
    """As the package counts; None if there is no judgment."""
    length_controlled: dict[str, Any] | None
    """{"value", "standard_error", "glm"}, {"reason"}, or None if not asked for."""


def check_python(python: str) -> None:
    """Checks that an interpreter has alpaca_eval.

    Raises:
        UserError: It has not.
    """
    runner_process.check_packages(python, ("alpaca_eval",), "--alpaca-eval-python", INSTALL)


def judge_pairs(pairs: Pairs, judge: Judge, length_control: str | None, *, python: str, answers: Path) -> Outcome:
    """Has the pairs judged that have no judgment in `answers`, a folder, yet.

    Raises:
        UserError: The package refuses the config, no judge answers, or the process failed.
    """
    place = Path(judge.annotators_config)
    job = {
        "pairs": pairs.rows,
        "positions": pairs.positions,
        "length_control": length_control,
        "annotators_config": str(place.resolve()) if place.exists() else judge.annotators_config,
        "judge": judge.model,
        "cache": str((answers / f"{judge.identity}.json").resolve()),
        "concurrency": judge.concurrency,
    }
    return _outcome(python, job, judge, answers / "log")


def count(annotations: Sequence[Row], length_control: str, *, python: str, log: Path) -> Outcome:
    """Has recorded annotations of all of AlpacaEval's instructions, in their order, counted with length control.

    Raises:
        UserError: The process failed.
    """
    rows = [{"preference": None, **row} for row in annotations]
    job = {"annotations": rows, "positions": list(range(len(rows))), "length_control": length_control}
    return _outcome(python, job, None, log)


def _outcome(python: str, job: dict[str, Any], judge: Judge | None, log: Path) -> Outcome:
    told: dict[str, Any] = {}
    for event in runner_process.events(python, _RUNNER, job, environment=_environment(judge), log=log):
        told |= event
    if "refused" in told:
        raise UserError(f"--annotators-config {job['annotators_config']}: {told['refused']}")
    if "stopped" in told:
        raise UserError(
            f"the judge gives no judgment: {told['stopped']}; judgments so far are kept, and the same command asks for "
            f"the others (log: {log})"
        )
    return Outcome(
        annotations=told["annotations"] if judge else job["annotations"],
        failures=told.get("failures", {}),
        versions=told["versions"],
        win_rate=told.get("win_rate"),
        length_controlled=told.get("length_controlled"),
    )


def _environment(judge: Judge | None) -> dict[str, str]:
    """The package reads the address and the key from the environment unless a file of clients is there."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if judge and judge.base_url:
        address = {"OPENAI_API_BASE": judge.base_url, "OPENAI_CLIENT_CONFIG_PATH": os.devnull}
        environment |= address | {"OPENAI_API_KEYS": judge.key or "none", "OPENAI_API_KEY": judge.key or "none"}
    return environment
