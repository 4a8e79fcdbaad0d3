"""Brings a pipeline's stages up to date: skips what is done, resumes what is unfinished, makes the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from zephyr_ray.cluster import connect, preflight
from zephyr_ray.cluster.preload import ROWS
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.progress import Progress
from zephyr_ray.pipeline.stage import Identity, Stage, StageContext, identities
from zephyr_ray.pipeline.status import Status, status_of


class Screen(Protocol):
    """Where a person sees how a pipeline gets on."""

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line."""

    def plan(self, stages: Sequence[str]) -> None:
        """All stages that are brought up to date, in order."""

    def stage(self, name: str, unit: str) -> AbstractContextManager[Progress]:
        """Shows a stage's progress while the block runs."""


@dataclass(frozen=True)
class Plan:
    """What is to be brought up to date in a run."""

    run: Run
    stages: tuple[Stage, ...]
    """In order: each after what it reads."""
    known: dict[Stage, Identity]
    """What the artifact of each would be, and of those before them."""

    @property
    def todo(self) -> list[Stage]:
        """The stages that are not done."""
        finished = {
            each: self.run.artifact(each.name).is_finished(self.known[each].fingerprint) for each in self.stages
        }
        return [stage for stage in self.stages if not finished[stage]]

    def status(self, stage: Stage) -> Status:
        """How a stage stands."""
        known = self.known[stage]
        return status_of(self.run.artifact(stage.name), known.fingerprint, stage.config, known.inputs)

    def starting_at(self, begin: str) -> Plan:
        """The same from this stage on.

        Raises:
            UserError: It is none of the plan's, or one before it is not done.
        """
        names = [stage.name for stage in self.stages]
        if begin not in names:
            raise UserError(f"--from {begin}: this recipe has no such stage on its way; it has {', '.join(names)}")
        at = names.index(begin)
        for stage in self.stages[:at]:
            status = self.status(stage)
            if status.kind != "done":
                raise UserError(f"--from {begin}: {stage.name} is {status}; start there, or leave --from out")
        return replace(self, stages=self.stages[at:])


def plan(run: Run, stages: Sequence[Stage]) -> Plan:
    """What bringing these stages up to date takes, and whether this machine can do it.

    Raises:
        UserError: An input from outside is missing, or the cluster cannot be used from here.
    """
    preflight.check_driver()
    return Plan(run, tuple(stages), identities(stages))


def bring_up_to_date(plan: Plan, screen: Screen) -> None:
    """Makes every stage of a plan that is not done.

    Raises:
        UserError: What a person can mend.
        KeyboardInterrupt: It was stopped; another call goes on from there.
    """
    todo = plan.todo
    if not todo:
        for stage in plan.stages:
            _say_done(stage, screen)
        return
    from zephyr_ray.cluster import scheduling, shared_storage

    with connect.connected(sum((stage.preload for stage in todo), ROWS)):
        scheduling.check_job(todo)
        if connect.is_joined():
            shared_storage.check_nodes(plan.run, dict.fromkeys(file for stage in todo for file in stage.local_files))
        screen.plan([stage.name for stage in plan.stages])
        for stage in plan.stages:
            if stage in todo:
                _make(plan, stage, screen)
            else:
                _say_done(stage, screen)


def _say_done(stage: Stage, screen: Screen) -> None:
    screen.say(f"{stage.name:<22} already done")


def _make(plan: Plan, stage: Stage, screen: Screen) -> None:
    from zephyr_ray.cluster import scheduling
    from zephyr_ray.pipeline.provenance import environment

    artifact, known = plan.run.artifact(stage.name), plan.known[stage]
    scheduling.make_room(stage, screen.say)
    if artifact.begin(known.fingerprint):
        screen.say(f"{stage.name:<22} resuming")
    started = time.time()
    with screen.stage(stage.name, stage.unit) as progress:
        made = stage.make(StageContext(stage, plan.run, artifact, progress))
    artifact.finish(
        {
            "stage": stage.name,
            "fingerprint": known.fingerprint,
            "inputs": known.inputs,
            "config": stage.config,
            **made,
            "environment": environment(),
            "seconds": round(time.time() - started, 2),
        }
    )
    for line in () if stage.is_evaluation else made.get("lines", ()):
        screen.say(f"  {line}")
