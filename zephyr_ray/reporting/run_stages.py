"""The stages that lie under a run's root, as their manifests describe them, in the order in which one reads another."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs as pafs

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import epochs
from zephyr_ray.pipeline.artifacts import Artifact, Run

_DEPTH = 3  # round_2/evaluation/NAME
_ROUND = re.compile(r"round_\d+")
_NO_STAGES = frozenset({"logs", "lease", "feedback"})


@dataclass(frozen=True)
class MadeStage:
    """A stage that was made, or begun."""

    name: str
    """Within its round: `dpo`, `evaluation/preferences`."""
    artifact: Artifact
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """Empty where the stage is not finished, or its manifest cannot be read."""
    begun: str | None = None
    """When an unfinished stage began, as ISO 8601."""
    problem: str | None = None
    """Why the manifest cannot be read."""

    @property
    def is_finished(self) -> bool:
        return bool(self.manifest)

    @property
    def status(self) -> str:
        if self.problem:
            return self.problem
        return "finished" if self.is_finished else f"unfinished, begun {self.begun or 'at an unknown time'}"

    @property
    def counts(self) -> Mapping[str, Any]:
        """Rows in, out and dropped; empty where the stage has none."""
        found = self.manifest.get("counts")
        return found if isinstance(found, dict) and {"in", "out", "dropped"} <= found.keys() else {}


@dataclass(frozen=True)
class Round:
    """The stages of a run, or of one round of it."""

    label: str
    """The run's name; of a later round `NAME round_2`."""
    run: Run
    stages: list[MadeStage]
    """Each after the stages that it read."""
    folder: str = ""
    """Of a later round, and of a run whose rounds are all in folders of their own, below the root."""

    def stage(self, name: str) -> MadeStage | None:
        """The finished stage of that name."""
        return next((stage for stage in self.stages if stage.name == name and stage.is_finished), None)


def open_root(root: str) -> Run:
    """The run that lies there.

    Raises:
        UserError: There is no folder, or nothing in it that a stage made.
    """
    run = Run(root)
    run.check_readable()
    found = run.filesystem.get_file_info(run.path)
    if run.is_local and found.type != pafs.FileType.Directory:
        raise UserError(f"{root}: there is no such folder; give the folder that run.root named")
    if run.artifact("").states() != epochs.States():
        raise UserError(f"{root} is one stage of a run; give the run's root: {posixpath.dirname(run.root)}")
    if next(_stage_folders(run), None) is None:
        raise UserError(f"{root}: no stage of a run lies there; give the folder that run.root named")
    return run


def read_rounds(run: Run, label: str | None = None) -> list[Round]:
    """The rounds of a run, the first one first; most runs have one."""
    name = label or posixpath.basename(run.root.rstrip("/")) or run.root
    by_folder: dict[str, list[MadeStage]] = {}
    for folder in _stage_folders(run):
        first, _, rest = folder.partition("/")
        place, kind = (first, rest) if _ROUND.fullmatch(first) and rest else ("", folder)
        by_folder.setdefault(place, []).append(_read(run, folder, kind))
    several = len(by_folder) > 1
    return [
        Round(f"{name} {place or 'round_1'}" if several else name, run, in_order(by_folder[place]), place)
        for place in sorted(by_folder, key=lambda place: (len(place), place))
    ]


def in_order(stages: Sequence[MadeStage]) -> list[MadeStage]:
    """Each stage after those that it read, by the fingerprints in its manifest; unfinished ones last."""
    left = sorted(stages, key=lambda stage: (not stage.is_finished, stage.name))
    makers = {stage.manifest["fingerprint"]: stage.name for stage in left if stage.is_finished}
    reads = {stage.name: {makers[each] for each in _inputs(stage) if each in makers} - {stage.name} for stage in left}
    ordered: list[MadeStage] = []
    while left:
        there = {stage.name for stage in ordered}
        following = next((stage for stage in left if reads[stage.name] <= there), left[0])
        ordered.append(following)
        left.remove(following)
    return ordered


def sources_of(stage: MadeStage, stages: Sequence[MadeStage]) -> list[MadeStage]:
    """The stages among these that it read."""
    inputs = set(_inputs(stage))
    return [each for each in stages if each.is_finished and each.manifest["fingerprint"] in inputs]


def _inputs(stage: MadeStage) -> list[str]:
    return [*stage.manifest.get("inputs", {}).values(), *stage.manifest.get("watched", {}).values()]


def _read(run: Run, folder: str, name: str) -> MadeStage:
    artifact = run.artifact(folder)
    try:
        manifest = artifact.manifest()
        begun = (artifact.unfinished() or {}).get("begun") if manifest is None else None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return MadeStage(name, artifact, problem=f"its manifest is no JSON ({error}); make the stage anew")
    if manifest is not None and not (isinstance(manifest, dict) and isinstance(manifest.get("fingerprint"), str)):
        return MadeStage(name, artifact, problem="its manifest has no fingerprint; make the stage anew")
    return MadeStage(name, artifact, manifest or {}, begun)


def _stage_folders(run: Run, folder: str = "", depth: int = _DEPTH) -> Iterator[str]:
    """Folders with a stage's state file, relative to the root, without what was replaced."""
    selector = pafs.FileSelector(posixpath.join(run.path, folder).rstrip("/"), allow_not_found=True)
    for info in sorted(run.filesystem.get_file_info(selector), key=lambda info: info.base_name):
        if info.type != pafs.FileType.Directory or info.base_name in _NO_STAGES or ".replaced-" in info.base_name:
            continue
        name = posixpath.join(folder, info.base_name)
        if run.artifact(name).states() != epochs.States():
            yield name
        elif depth > 1:
            yield from _stage_folders(run, name, depth - 1)
