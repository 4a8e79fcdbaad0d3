"""Bring a pipeline's stages up to date: skip finished ones, resume unfinished ones, make the rest."""

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
    """Shows a person the progress of a pipeline."""

    def say(self, text: str = "", style: str | None = None) -> None:
        """Prints a line."""

    def plan(self, stages: Sequence[str]) -> None:
        """Announces all stages to be brought up to date, in order."""

    def stage(self, name: str, unit: str) -> AbstractContextManager[Progress]:
        """Shows a stage's progress while the block runs."""


@dataclass(frozen=True)
class Plan:
    """The stages of a run to bring up to date."""

    run: Run
    stages: tuple[Stage, ...]
    """In order: each after its inputs."""
    known: dict[Stage, Identity]
    """The identity of each stage's artifact if it were made now, and of the stages before them."""

    @property
    def todo(self) -> list[Stage]:
        """The stages that are not done."""
        return [stage for stage in self.stages if not self.is_done(stage)]

    def is_done(self, stage: Stage) -> bool:
        return self.run.artifact(stage.name).is_finished(self.known[stage].fingerprint)

    def status(self, stage: Stage) -> Status:
        """The status of a stage."""
        known = self.known[stage]
        return status_of(self.run.artifact(stage.name), known.fingerprint, stage.config, known.inputs)

    def starting_at(self, begin: str) -> Plan:
        """The plan from this stage on.

        Raises:
            UserError: The plan has no such stage, or a stage before it is not done.
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
    """Plans how to bring these stages up to date, and checks that this machine can do it.

    Raises:
        UserError: An input from outside is missing, or the cluster cannot be used from this machine.
    """
    preflight.check_driver()
    return Plan(run, tuple(stages), identities(stages, run))


def bring_up_to_date(plan: Plan, screen: Screen) -> None:
    """Makes every stage of a plan that is not done.

    Raises:
        UserError: Something that the user can fix is wrong.
        KeyboardInterrupt: It was interrupted; another call continues from there.
    """
    todo = plan.todo
    if not todo:
        for stage in plan.stages:
            _say_done(stage, screen)
        return
    from zephyr_ray.cluster import scheduling, shared_storage

    with connect.connected(sum((stage.preload for stage in todo), ROWS)):
        scheduling.check_job({stage.name: stage.demands for stage in todo})
        if connect.is_joined():
            shared_storage.check_nodes(
                plan.run.root, dict.fromkeys(file for stage in todo for file in stage.local_files)
            )
        screen.plan([stage.name for stage in plan.stages])
        for stage in plan.stages:
            if not plan.is_done(stage):
                _make_stage(plan, stage, screen)
                if stage.makes_model:  # which weights it holds is known only now
                    plan = replace(plan, known=identities(plan.stages, plan.run))
            else:
                _say_done(stage, screen)


def _say_done(stage: Stage, screen: Screen) -> None:
    screen.say(f"{stage.name:<22} already done")


def _make_stage(plan: Plan, stage: Stage, screen: Screen) -> None:
    from zephyr_ray.cluster import scheduling
    from zephyr_ray.pipeline.provenance import record

    artifact, known = plan.run.artifact(stage.name), plan.known[stage]
    scheduling.wait_for_room(stage.name, stage.demands, screen.say)
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
            **record(stage),
            "seconds": round(time.time() - started, 2),
        }
    )
    for line in () if stage.is_evaluation else made.get("lines", ()):
        screen.say(f"  {line}")
