"""A stage of a pipeline as a value: its inputs, configuration, resources, and the function that makes it.

Each module that makes an artifact has a function `stage` that returns one. A pipeline is a list of them
(`zephyr_ray.zephyr`); the same kind can occur again in a later round, with other inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zephyr_ray.cluster.preload import ROWS, Preload
from zephyr_ray.cluster.resources import Demand
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.fingerprints import fingerprint
from zephyr_ray.pipeline.status import changes
from zephyr_ray.pipeline.weights import input_weights

Manifest = dict[str, Any]
"""A stage's own part of its manifest: files, counts, and `lines` for a person."""


def folder_of(number: int, kind: str) -> str:
    """The name of a stage of a round."""
    return kind if number == 1 else f"round_{number}/{kind}"


@dataclass(frozen=True, eq=False)
class Stage:
    """One artifact of a run and how to make it."""

    kind: str
    """Its name within a round: `preferences`, `dpo` ..."""
    unit: str
    """The unit of its progress, such as rows or steps."""
    config: Any
    """The semantic values it is made from, as JSON; together with its inputs they determine its fingerprint."""
    make: Callable[[StageContext], Manifest]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    """The stages whose artifacts it reads, by the names that it uses for them."""
    watched: Mapping[str, Stage] = field(default_factory=dict)
    """Further ones that it reads, and that change nothing of what it makes: no part of its fingerprint."""
    outside: Callable[[], dict[str, str]] = dict
    """Fingerprints of the files and models that it reads from outside the run. Raises UserError if one is missing."""
    commits: Callable[[], dict[str, str]] = dict
    """The commits of the hub's models and datasets that it reads, by id. Raises as `outside`."""
    local_files: tuple[tuple[str, str], ...] = ()
    """(recipe field, path) of everything that its workers open from outside the run."""
    resources: tuple[Demand, ...] = ()
    """Everything that it needs at one time. Empty: one CPU."""
    preload: Preload = ROWS
    """What its workers import."""
    check: Callable[[], None] = lambda: None
    """Raises UserError for wrong settings that can be detected before any work."""
    makes_model: bool = False
    """Whether it writes a checkpoint that can be served."""
    reads_weights: bool = True
    """False if it reads no more than the tokenizer of its models: other weights then change nothing."""
    is_evaluation: bool = False
    """Whether its lines are a result, printed at the end."""
    round: int = 1
    """Artifacts of a later round lie in `round_<number>/`."""

    @functools.cached_property
    def from_outside(self) -> dict[str, str]:
        """What `outside` returned when it was first asked: a command looks once."""
        return self.outside()

    @property
    def name(self) -> str:
        """Its folder under the run's root."""
        return folder_of(self.round, self.kind)

    @property
    def reads(self) -> dict[str, Stage]:
        """Every stage whose artifact it reads."""
        return {**self.inputs, **self.watched}

    @property
    def demands(self) -> tuple[Demand, ...]:
        """Everything that it asks of a cluster at one time."""
        return self.resources or (
            Demand(self.name, {"CPU": 1}, 1),
        )  # enough for Ray Data's tasks, at worst one after the other


@dataclass(frozen=True)
class StageContext:
    """The arguments of a stage's `make`."""

    stage: Stage
    run: Run
    artifact: Artifact
    """The stage's output."""
    progress: Any
    """Handle that workers report through (`progress.Progress`)."""

    def input(self, name: str) -> Artifact:
        """The artifact of an input."""
        return self.run.artifact(self.stage.reads[name].name)


@dataclass(frozen=True)
class Identity:
    """The identity of a stage's artifact if it were made now."""

    fingerprint: str
    inputs: dict[str, str]
    """Fingerprints of everything it reads, by name."""


def up_to(stages: Sequence[Stage], targets: Sequence[str]) -> list[Stage]:
    """The named targets and everything they read, in the pipeline's order.

    Raises:
        UserError: The pipeline has no such stage.
    """
    by_name = {stage.name: stage for stage in stages}
    wanted: set[Stage] = set()

    def visit(stage: Stage) -> None:
        if stage not in wanted:
            wanted.add(stage)
            for upstream in stage.reads.values():
                visit(upstream)

    for name in targets:
        if name not in by_name:
            raise UserError(f"this recipe has no stage {name}; it has {', '.join(by_name)}")
        visit(by_name[name])
    return [stage for stage in stages if stage in wanted]


def identities(stages: Sequence[Stage], run: Run | None = None) -> dict[Stage, Identity]:
    """The identity of each stage's artifact. A stage must come after its inputs.

    Args:
        stages: The stages.
        run: An artifact of this run that does not differ (`status.changes`) keeps the fingerprint that it has. Its
            manifests say which weights its checkpoints hold (`weights.input_weights`).

    Raises:
        UserError: An input from outside is missing or cannot be read.
    """
    known: dict[Stage, Identity] = {}
    for stage in stages:
        inputs = {name: known[upstream].fingerprint for name, upstream in stage.inputs.items()} | stage.from_outside
        if run is not None:
            inputs |= input_weights(stage, known, run)
        kept = run and _recorded_fingerprint(run.artifact(stage.name), stage, inputs)
        known[stage] = Identity(kept or fingerprint(stage.kind, stage.config, inputs), inputs)
    return known


def _recorded_fingerprint(artifact: Artifact, stage: Stage, inputs: Mapping[str, str]) -> str | None:
    """The fingerprint of what is there, if the same would be made now."""
    record = artifact.record()
    return record["fingerprint"] if record and not changes(record, stage.config, inputs) else None
