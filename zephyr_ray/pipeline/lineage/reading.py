"""Reads the lineage of a run from its manifests, and of a checkpoint from the file in its folder."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow.fs as pafs

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import epochs
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.lineage.chain import final_models, of_lineage
from zephyr_ray.pipeline.lineage.facts import FILE, Lineage, StageFacts, facts, from_json, is_replaced

RECIPE = "recipe.yaml"
_AT_ONCE = 16
_DEEPEST = 2
"""Folders that a stage's name may have: `round_2/evaluation/preferences`."""
_NO_STAGES = {"lease", "logs", "feedback"}


@dataclass(frozen=True)
class Place:
    """A run, or a stage of one."""

    run: Run
    stage: str | None = None


def located(path: str) -> Place:
    """What a path names: a run's root, or the folder of one of its stages.

    Raises:
        UserError: There is no run, or it cannot be read.
    """
    given = Run(path)
    given.check_readable()
    if not is_there(given):
        raise UserError(f"{path} is not there; give the run.root of a recipe, or the folder of a stage or checkpoint")
    if not _is_artifact(given, ""):
        return Place(given)
    parts = given.root.rstrip("/").split("/")
    roots = ["/".join(parts[:-depth]) for depth in range(1, _DEEPEST + 2) if len(parts) > depth]
    root = next((each for each in roots if _has_recipe(each)), roots[0])
    return Place(Run(root), "/".join(parts[root.count("/") + 1 :]))


def stages_of(
    run: Run, manifests: Mapping[str, Mapping[str, Any]] | None = None, *, skip_damaged: bool = False
) -> dict[str, StageFacts]:
    """The stages of a run by the names of their folders, also of those that are unfinished or were replaced.

    Args:
        run: The run.
        manifests: Those of stages that are about to be finished.
        skip_damaged: Leave out a stage whose manifest is damaged, as if it were not there.

    Raises:
        UserError: There is none, or a manifest is damaged.
    """
    names = sorted(artifact_names(run))
    if not names:
        raise UserError(f"{run.root} is no run: no stage has begun there; give the run.root of a recipe{_runs_in(run)}")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = dict(zip(names, pool.map(lambda name: _read(run.artifact(name), skip_damaged), names), strict=True))
    known = {name: each for name, each in read.items() if each is not None}
    known |= {name: _Record(each, finished=True, changed_at=None) for name, each in (manifests or {}).items()}
    # of two with one fingerprint, the one that is in use
    held = sorted(known, key=lambda name: (not is_replaced(name), known[name].finished))
    holders = {str(known[name].record.get(what)): name for what in ("weights", "fingerprint") for name in held}
    return {
        name: facts(name, each.record, finished=each.finished, holders=holders, changed_at=each.changed_at)
        for name, each in known.items()
    }


def lineage_of(place: Place) -> Lineage:
    """The lineage of a stage; of a run that of its final models, or all of it while there is no model.

    Raises:
        UserError: There is no run, or it has no such stage.
    """
    found = stages_of(place.run)
    if place.stage is not None:
        if place.stage not in found:
            raise UserError(f"{place.run.root} has no stage {place.stage}; it has {', '.join(found)}")
        return with_earlier_runs(of_lineage(found, place.run.root, [place.stage]))
    models = final_models(found)
    behind = of_lineage(found, place.run.root, models or [name for name in found if not is_replaced(name)])
    shown = {each.stage for each in (*behind.stages, *behind.evaluations)}
    others = {name: each.finished for name, each in found.items() if name not in shown}
    return with_earlier_runs(replace(behind, of=tuple(models), others=others))


def with_earlier_runs(lineage: Lineage) -> Lineage:
    """The lineage with those of other runs' checkpoints that trainings of this one began with, where they have one."""
    own = {each.stage for each in lineage.stages if each.is_model}
    starts = [
        model.model
        for each in lineage.stages
        for model in each.models
        if model.role == "start" and not own & {one.stage for one in each.inputs}
    ]
    found = {}
    for path in starts:
        try:
            found[path] = exported(path)
        except UserError:  # a bucket that is gone or a foreign file: the rest is known all the same
            continue
    return replace(lineage, before={path: each for path, each in found.items() if each is not None})


def exported(folder: str) -> Lineage | None:
    """The lineage in a checkpoint's folder, wherever that lies now; None if it has none.

    Raises:
        UserError: The file is damaged, or the store refuses.
    """
    found = _exported(folder)
    try:
        return None if found is None else from_json(found)
    except (KeyError, TypeError, AttributeError):
        raise _foreign(folder) from None


def exported_recipe(folder: str) -> str | None:
    """The recipe in a checkpoint's folder; None if that has no lineage. Raises as `exported`."""
    found = _exported(folder)
    if found is not None and not isinstance(found.get("recipe"), str):
        raise _foreign(folder)
    return None if found is None else found["recipe"]


def recipe_text(run: Run) -> str:
    """The resolved recipe that a run keeps.

    Raises:
        UserError: It keeps none.
    """
    try:
        with run.filesystem.open_input_stream(posixpath.join(run.path, RECIPE)) as stream:
            return str(stream.read().decode())
    except FileNotFoundError:
        raise UserError(f"{run.root} has no {RECIPE}; a run writes it when it makes its first stage") from None


def _exported(folder: str) -> dict[str, Any] | None:
    run = Run(folder)
    run.check_readable()
    if not _is_file(run, FILE):
        return None
    try:
        found = run.artifact("").read_json(FILE)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _foreign(folder)
    return found


def _foreign(folder: str) -> UserError:
    return UserError(f"{folder}/{FILE} is not a lineage that zephyr_ray wrote; name the run instead, or delete it")


def artifact_names(run: Run, folder: str = "", depth: int = 0) -> Iterator[str]:
    """The folders of a run that hold a stage's artifact, relative to its root. Another run in it is none of its."""
    for name in _folders(run, folder):
        if name in _NO_STAGES:
            continue
        if _is_artifact(run, name):
            yield name
        elif depth < _DEEPEST and not _is_file(run, posixpath.join(name, RECIPE)):
            yield from artifact_names(run, name, depth + 1)


def _folders(run: Run, folder: str = "") -> list[str]:
    selector = pafs.FileSelector(posixpath.join(run.path, folder).rstrip("/"), allow_not_found=True)
    found = run.filesystem.get_file_info(selector)
    return [posixpath.join(folder, info.base_name) for info in found if info.type == pafs.FileType.Directory]


def _runs_in(run: Run) -> str:
    """The runs that lie in a folder, for an error."""
    found = sorted(name for name in _folders(run) if _is_file(run, posixpath.join(name, RECIPE)))
    return f", such as {posixpath.join(run.root, found[0])}" if found else ""


@dataclass(frozen=True)
class _Record:
    record: Mapping[str, Any]
    finished: bool
    changed_at: str | None


def _read(artifact: Artifact, skip_damaged: bool) -> _Record | None:
    states = artifact.states()
    try:
        record = artifact.record(states)
    except json.JSONDecodeError as error:
        if skip_damaged:
            return None
        raise UserError(
            f"{artifact.uri}: its manifest is damaged ({error}); put it back, or delete the stage"
        ) from None
    if record is None:
        return None
    kind = epochs.MANIFEST if states.is_finished else epochs.UNFINISHED
    path = posixpath.join(artifact.path, epochs.state_name(kind, states.highest))
    return _Record(record, states.is_finished, _time_of(artifact.run.filesystem.get_file_info(path)))


def _time_of(info: pafs.FileInfo) -> str | None:
    return info.mtime.astimezone(UTC).isoformat(timespec="seconds") if isinstance(info.mtime, datetime) else None


def _is_artifact(run: Run, name: str) -> bool:
    return run.artifact(name).states() != epochs.States()


def is_there(run: Run) -> bool:
    """Whether there is a folder."""
    return run.filesystem.get_file_info(run.path).type == pafs.FileType.Directory


def _is_file(run: Run, name: str) -> bool:
    return run.filesystem.get_file_info(posixpath.join(run.path, name)).type == pafs.FileType.File


def _has_recipe(root: str) -> bool:
    return _is_file(Run(root), RECIPE)
