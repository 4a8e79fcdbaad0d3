"""Bring a pipeline's stages up to date: skip finished ones, resume unfinished ones, make the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from zephyr_ray.cluster import connect, preflight
from zephyr_ray.cluster.preload import ROWS
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.events import (
    Alarm,
    Cost,
    Event,
    Planned,
    PlannedStage,
    Said,
    StageFinished,
    StageSkipped,
    StageStarted,
    StageStatus,
)
from zephyr_ray.pipeline.progress import Progress
from zephyr_ray.pipeline.replacement import Replacement, check_overwrite, replacements
from zephyr_ray.pipeline.stage import Identity, Stage, StageContext, identities
from zephyr_ray.pipeline.status import Status, status_of


class Screen(Protocol):
    """Shows how a pipeline gets on."""

    def say(self, text: str) -> None:
        """Shows a line."""

    def tell(self, event: Event) -> None:
        """Shows what happened."""

    def watched(self, name: str, unit: str) -> AbstractContextManager[Progress]:
        """Shows a stage's progress while the block runs."""


@dataclass(frozen=True)
class Consent:
    """What a user allows a command to do with what is there."""

    overwrite: tuple[str, ...] = ()
    """Stages whose artifacts may be moved aside and made anew."""
    take_over: bool = False
    """Take the run from a command that holds it and has fallen silent."""
    lease: bool = True
    """Keep other commands from the run. False for a store without conditional writes."""


@dataclass(frozen=True)
class Plan:
    """The stages of a run to bring up to date."""

    run: Run
    stages: tuple[Stage, ...]
    """In order: each after its inputs."""
    known: dict[Stage, Identity]
    """The identity of each stage's artifact if it were made now, and of the stages before them."""

    recipe: str = ""
    """The resolved recipe, which is kept with the run."""
    lease_s: float = 60.0
    """Time after which a command that holds the run and does not say so any more may be replaced."""

    @property
    def todo(self) -> list[Stage]:
        """The stages that are not done."""
        return [stage for stage in self.stages if not self.is_done(stage)]

    def is_done(self, stage: Stage) -> bool:
        return self.status(stage).kind == "done"

    def status(self, stage: Stage) -> Status:
        """The status of a stage."""
        known = self.known[stage]
        return status_of(self.run.artifact(stage.name), known.fingerprint, stage.config, known.inputs)

    def notes(self, stage: Stage) -> list[str]:
        """What a person has to know of a finished stage: alarms that it ended with, what it did not watch, and how the
        code and the libraries that made it differ from those of now."""
        from zephyr_ray.pipeline import provenance

        manifest = self.run.artifact(stage.name).manifest()
        if not manifest:
            return []
        watched, now = manifest.get("watched", {}), self.watched(stage)
        unwatched = [f"made without this {name}" for name in sorted(now) if watched.get(name) != now[name]]
        return [*manifest.get("alarms", ()), *unwatched, *provenance.notes(manifest, stage)]

    def noted(self, stage: Stage) -> list[Said | Alarm]:
        """Its notes as they are told of, alarms as such."""
        manifest = self.run.artifact(stage.name).manifest() or {}
        return _words(stage.name, self.notes(stage), manifest.get("alarms", ()))

    def event(self) -> Planned:
        """The stages, and how they stand."""
        found = []
        for stage in self.stages:
            status = self.status(stage)
            found.append(planned(stage, status.kind, status.changed))
        return Planned(stages=tuple(found))

    def watched(self, stage: Stage) -> dict[str, str]:
        """The fingerprints of what a stage watches, by name."""
        return {name: self.known[upstream].fingerprint for name, upstream in stage.watched.items()}

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

    def check(self, consent: Consent) -> None:
        """Refuses what would destroy something.

        Raises:
            UserError: An artifact would be replaced that the user has not named, or a folder is not a stage's.
        """
        names = [stage.name for stage in self.stages]
        for name in consent.overwrite:
            if name not in names:
                raise UserError(f"--overwrite {name}: no such stage is made here; there are {', '.join(names)}")
        check_overwrite(self.run, self.replacements(), consent.overwrite)
        for stage in self.todo:
            self.run.artifact(stage.name).check_ours()

    def replacements(self) -> list[Replacement]:
        """What bringing the stages up to date would replace."""
        return replacements(self.run, self.stages, self.known)


def plan(run: Run, stages: Sequence[Stage], recipe: str = "", lease_s: float = 60.0) -> Plan:
    """Plans how to bring these stages up to date, and checks that this machine can do it.

    Raises:
        UserError: An input from outside is missing, or the cluster cannot be used from this machine.
    """
    preflight.check_driver()
    return Plan(run, tuple(stages), identities(stages, run), recipe, lease_s)


def bring_up_to_date(plan: Plan, screen: Screen, consent: Consent | None = None) -> None:
    """Makes every stage of a plan that is not done.

    Raises:
        UserError: Something that the user can fix is wrong.
        KeyboardInterrupt: It was interrupted; another call continues from there.
    """
    consent = consent or Consent()
    plan.check(consent)
    if not plan.todo:
        screen.tell(plan.event())
        for stage in plan.stages:
            plan.run.artifact(stage.name).tidy()
            _say_done(plan, stage, screen)
        return
    with _held(plan, screen, consent):
        plan.check(consent)  # again: another command may have been at work until now
        plan.run.write_text("recipe.yaml", plan.recipe)
        screen.tell(plan.event())
        _make_all(plan, screen, consent)


def _held(plan: Plan, screen: Screen, consent: Consent) -> AbstractContextManager[object]:
    """Holds the run's lease while the block runs, or gives the run an epoch without one."""
    from zephyr_ray.pipeline import lease

    plan.run.check_writable()
    if consent.lease:
        return lease.held(plan.run, plan.lease_s, take_over=consent.take_over, say=screen.say)
    lease.without(plan.run)
    return nullcontext()


def _make_all(plan: Plan, screen: Screen, consent: Consent) -> None:
    from zephyr_ray.cluster import scheduling, shared_storage

    todo = plan.todo
    with connect.connected(sum((stage.preload for stage in todo), ROWS)):
        scheduling.check_job({stage.name: stage.demands for stage in todo})
        if connect.is_joined():
            shared_storage.check_nodes(
                plan.run.root, dict.fromkeys(file for stage in todo for file in stage.local_files)
            )
        _move_replaced_aside(plan, screen)
        for stage in plan.stages:
            if not plan.is_done(stage):
                _make_stage(plan, stage, screen)
                if stage.makes_model:  # which weights it holds is known only now
                    plan = replace(plan, known=identities(plan.stages, plan.run))
                    plan.check(consent)
                    _move_replaced_aside(plan, screen)
            else:
                plan.run.artifact(stage.name).tidy()
                _say_done(plan, stage, screen)


def _move_replaced_aside(plan: Plan, screen: Screen) -> None:
    from zephyr_ray.pipeline.move_aside import finish_move, move_aside

    for stage in plan.todo:
        finish_move(plan.run.artifact(stage.name))
    for each in plan.replacements():
        moved_to = move_aside(plan.run.artifact(each.stage.name))
        screen.say(f"{each.stage.name:<22} the old one lies in {moved_to} now")


def _say_done(plan: Plan, stage: Stage, screen: Screen) -> None:
    screen.tell(StageSkipped(stage=stage.name))
    for note in plan.noted(stage):
        screen.tell(note)


def _make_stage(plan: Plan, stage: Stage, screen: Screen) -> None:
    from zephyr_ray.cluster import scheduling
    from zephyr_ray.pipeline.lineage.export import write_to_checkpoint
    from zephyr_ray.pipeline.provenance import record

    artifact, known = plan.run.artifact(stage.name), plan.known[stage]
    screen.tell(StageStarted(stage=stage.name, unit=stage.unit))
    for upstream in stage.reads.values():
        plan.run.artifact(upstream.name).check_files()
    scheduling.wait_for_room(stage.name, stage.demands, screen.say)
    if artifact.begin(known.fingerprint, stage.config, known.inputs):
        screen.say(f"{stage.name:<22} resuming")
    started = time.time()
    with screen.watched(stage.name, stage.unit) as progress:
        made = stage.make(StageContext(stage, plan.run, artifact, progress))
    seconds = round(time.time() - started, 2)
    manifest = {
        "stage": stage.name,
        "fingerprint": known.fingerprint,
        "inputs": known.inputs,
        **({"watched": watched} if (watched := plan.watched(stage)) else {}),
        "config": stage.config,
        **made,
        **record(stage),
        "begun": (artifact.unfinished() or {}).get("begun"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
    }
    if "checkpoint" in manifest:
        write_to_checkpoint(artifact, manifest, plan.recipe)
    artifact.finish(manifest)
    screen.tell(_finished(stage, made, seconds))
    for line in () if stage.is_evaluation else _words(stage.name, made.get("lines", ()), made.get("alarms", ())):
        screen.tell(line)


def planned(stage: Stage, status: StageStatus, changed: Sequence[str] = ()) -> PlannedStage:
    """A stage as it is told of in a plan."""
    reads = tuple(each.name for each in stage.reads.values())
    return PlannedStage(name=stage.name, unit=stage.unit, reads=reads, status=status, changed=tuple(changed))


def _finished(stage: Stage, made: dict[str, Any], seconds: float) -> StageFinished:
    """What a stage's part of its manifest says of its rows and of what it asked models."""
    counts = made.get("counts", {})
    rows = {name: counts[name] for name in ("in", "out", "added") if name in counts}
    cost = Cost(**made["asked"]) if made.get("asked") else None
    return StageFinished(stage=stage.name, counts=rows, dropped=counts.get("dropped", {}), seconds=seconds, cost=cost)


def _words(stage: str, lines: Sequence[str], alarms: Sequence[str]) -> list[Said | Alarm]:
    """A stage's lines for a person, told apart from its alarms."""
    return [(Alarm if line in alarms else Said)(stage=stage, text=f"  {line}") for line in lines]
