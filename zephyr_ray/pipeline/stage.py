"""A stage of a pipeline: a value that says what it reads, what it is made from, what it needs, and how it is made.

Each module that makes an artifact has a function `stage` that returns one. A pipeline is a list of them
(`zephyr_ray.zephyr`); the same kind can stand in it again, in a later round, with inputs of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zephyr_ray.cluster.preload import ROWS, Preload
from zephyr_ray.cluster.resources import Demand
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run, fingerprint

Manifest = dict[str, Any]
"""A stage's own part of its manifest: files, counts, and `lines` for a person."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One artifact of a run, and how to make it."""

    kind: str
    """What it is: `preferences`, `dpo` ..."""
    unit: str
    """What its progress counts."""
    config: Any
    """The semantic values it is made from, as JSON: they and its inputs decide its fingerprint."""
    make: Callable[[StageContext], Manifest]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    """The stages whose artifacts it reads, by the name that it reads them under."""
    outside: Callable[[], dict[str, str]] = dict
    """Fingerprints of the files and models that it reads from outside of the run. Raises UserError where one is
    missing."""
    local_files: tuple[tuple[str, str], ...] = ()
    """(recipe field, path) of what its workers open from outside of the run."""
    resources: tuple[Demand, ...] = ()
    """All that must be there at one time for it to go on. Empty: one CPU."""
    preload: Preload = ROWS
    """What its workers import."""
    check: Callable[[], None] = lambda: None
    """Raises UserError for what is wrong with its settings and can be known before any work."""
    makes_model: bool = False
    """Whether it writes a checkpoint, a model that can be served."""
    is_evaluation: bool = False
    """Whether its lines are a result, and are told at the end."""
    round: int = 1
    """A later round's artifacts lie in `round_<number>/`."""

    @property
    def name(self) -> str:
        """Its folder under the run's root."""
        return self.kind if self.round == 1 else f"round_{self.round}/{self.kind}"

    @property
    def demands(self) -> tuple[Demand, ...]:
        """All that it asks of a cluster at one time."""
        return self.resources or (Demand(self.name, {"CPU": 1}, 1),)  # Ray Data's tasks, one after the other at worst


@dataclass(frozen=True)
class StageContext:
    """What a stage is made with."""

    stage: Stage
    run: Run
    artifact: Artifact
    """What it writes."""
    progress: Any
    """Handle that workers report through (`progress.Progress`)."""

    def input(self, name: str) -> Artifact:
        """The artifact of an input."""
        return self.run.artifact(self.stage.inputs[name].name)


@dataclass(frozen=True)
class Identity:
    """What a stage's artifact is, were it made now."""

    fingerprint: str
    inputs: dict[str, str]
    """Fingerprints of all it reads, by name."""


def up_to(stages: Sequence[Stage], targets: Sequence[str]) -> list[Stage]:
    """The targets, by name, and everything they read, in the pipeline's order.

    Raises:
        UserError: The pipeline has no such stage.
    """
    by_name = {stage.name: stage for stage in stages}
    wanted: set[Stage] = set()

    def visit(stage: Stage) -> None:
        if stage not in wanted:
            wanted.add(stage)
            for upstream in stage.inputs.values():
                visit(upstream)

    for name in targets:
        if name not in by_name:
            raise UserError(f"this recipe has no stage {name}; it has {', '.join(by_name)}")
        visit(by_name[name])
    return [stage for stage in stages if stage in wanted]


def identities(stages: Sequence[Stage]) -> dict[Stage, Identity]:
    """What each stage's artifact would be; a stage stands after those that it reads.

    Raises:
        UserError: An input from outside is missing or cannot be read.
    """
    known: dict[Stage, Identity] = {}
    for stage in stages:
        inputs = {name: known[upstream].fingerprint for name, upstream in stage.inputs.items()} | stage.outside()
        known[stage] = Identity(fingerprint(stage.kind, stage.config, inputs), inputs)
    return known
