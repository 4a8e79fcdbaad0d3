"""Move an artifact that is made anew to `<stage>.replaced-<fingerprint>-<epoch>`: nothing finished is deleted.

Replies stay where they are, because requests that are made again find them there.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any

import pyarrow.fs as pafs

from zephyr_ray.pipeline import epochs
from zephyr_ray.pipeline.artifacts import REPLIES, Artifact

_COPIED_AT_ONCE = 5 << 30  # bytes: a store copies a larger object only in parts


def move_aside(artifact: Artifact) -> str:
    """Moves everything but the replies, and returns the folder that it lies in now.

    From the first moment on the artifact is not finished. After a kill `finish_move` goes on.

    Raises:
        UserError: Another driver has taken the run over, or has just changed the artifact.
    """
    states = artifact.states()
    record = artifact.record(states)
    if record is None:
        raise artifact.changed_meanwhile()
    target = record.get("moving_to") or _name_aside(artifact, record)
    artifact.seal({"fingerprint": None, "moving_to": target}, states)
    finish_move(artifact)
    return artifact.run.artifact(target).uri


def finish_move(artifact: Artifact) -> None:
    """Goes on with a move that was interrupted, if there is one. Raises as `move_aside`."""
    record = artifact.unfinished() or {}
    if "moving_to" not in record:
        return
    target = artifact.run.artifact(record["moving_to"])
    names = _names_before(artifact, record["epoch"])
    for name in sorted(names, key=_moves_late):
        artifact.check_epoch()  # the name may be a successor's by now, where names have no epoch
        if epochs.is_state(name) and not _belongs_to(target, artifact.read_json(name) or {}):
            artifact.delete(name)
        else:
            _move(artifact, name, target)
    artifact.seal({"fingerprint": None}, artifact.states())


def _moves_late(name: str) -> int:
    """Manifests arrive when all else is there, for a folder without one is no artifact."""
    return 2 if epochs.states([name]).finished >= 0 else int(epochs.is_state(name))


def _belongs_to(target: Artifact, state: Mapping[str, Any]) -> bool:
    """Whether what a state file names was moved there. One that a driver left which was taken over may name less than
    there is, or files that were replaced: it never counted."""
    named = [each if isinstance(each, str) else each["name"] for each in state.get("files", state.get("adopted", ()))]
    return state.get("fingerprint") is not None and all(target.has_file(name) for name in named)


def _names_before(artifact: Artifact, epoch: int) -> list[str]:
    """All files that drivers of lower epochs have written, relative to the artifact, without the replies."""
    selector = pafs.FileSelector(artifact.path, allow_not_found=True, recursive=True)
    found = artifact.run.filesystem.get_file_info(selector)
    files = [posixpath.relpath(info.path, artifact.path) for info in found if info.type == pafs.FileType.File]
    parts = {name: name.split("/") for name in files}
    return [
        name
        for name in files
        if parts[name][0] != REPLIES and max(epochs.epoch_of(part) for part in parts[name]) < max(epoch, 1)
    ]


def _name_aside(artifact: Artifact, record: Mapping[str, Any]) -> str:
    """The same for all drivers that move this artifact, and for no other artifact."""
    epoch = record.get("epoch", 0)
    return f"{artifact.stage}.replaced-{record['fingerprint']}" + (f"-{epoch:06d}" if epoch else "")


def _move(artifact: Artifact, name: str, target: Artifact) -> None:
    filesystem, goal = artifact.run.filesystem, posixpath.join(target.path, name)
    source = posixpath.join(artifact.path, name)
    try:
        if artifact.run.is_local:
            os.makedirs(posixpath.dirname(goal), exist_ok=True)
            os.rename(source, goal)
        else:
            _move_object(filesystem, source, goal)
    except FileNotFoundError:  # a driver that was taken over in the middle moves the same files
        return


def _move_object(filesystem: pafs.FileSystem, source: str, goal: str) -> None:
    info = filesystem.get_file_info(source)
    if info.type == pafs.FileType.NotFound:
        raise FileNotFoundError(source)
    if info.size <= _COPIED_AT_ONCE:
        filesystem.copy_file(source, goal)
    else:
        pafs.copy_files(source, goal, source_filesystem=filesystem, destination_filesystem=filesystem)
    filesystem.delete_file(source)
