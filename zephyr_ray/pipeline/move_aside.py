"""Move an artifact that is made anew to `<stage>.replaced-<fingerprint>`: nothing that was finished is deleted.

Replies stay where they are, because requests that are made again find them there.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

import pyarrow.fs as pafs

from zephyr_ray.pipeline import epochs
from zephyr_ray.pipeline.artifacts import REPLIES, Artifact

_COPIED_AT_ONCE = 5 << 30  # bytes: a store copies a larger object only in parts


def move_aside(artifact: Artifact) -> str:
    """Moves everything but the replies, and returns the folder that it lies in now.

    From the first moment on the artifact is not finished. After a kill `finish_move` goes on.

    Raises:
        ValueError: There is nothing to move.
    """
    record = artifact.manifest() or artifact.unfinished()
    if record is None:
        raise ValueError(f"{artifact.uri} is neither finished nor begun")
    target = _free_name(artifact, record["fingerprint"])
    artifact.seal({"fingerprint": None, "moving_to": target})
    finish_move(artifact)
    return artifact.run.artifact(target).uri


def finish_move(artifact: Artifact) -> None:
    """Goes on with a move that was interrupted, if there is one."""
    record = artifact.unfinished() or {}
    if "moving_to" not in record:
        return
    target = artifact.run.artifact(record["moving_to"])
    seal = epochs.state_name(epochs.UNFINISHED, record["epoch"])
    artifact.run.filesystem.create_dir(target.path, recursive=True)
    names = [name for name in artifact.names() if name not in (REPLIES, seal)]
    # A folder without a manifest is no artifact: the manifest arrives when all else is there.
    for name in sorted(names, key=epochs.is_state):
        _move(artifact, name, target)


def _free_name(artifact: Artifact, fingerprint: str) -> str:
    """The first name that no artifact has; a round's number goes before it, as before the stage's."""
    base = f"{artifact.stage}.replaced-{fingerprint}"
    names: Sequence[str] = [base, *(f"{base}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not artifact.run.artifact(name).has_files())


def _move(artifact: Artifact, name: str, target: Artifact) -> None:
    source, goal = posixpath.join(artifact.path, name), posixpath.join(target.path, name)
    try:
        if artifact.run.is_local:
            os.rename(source, goal)
        else:
            _move_objects(artifact.run.filesystem, source, goal)
    except FileNotFoundError:  # a driver that was taken over in the middle moves the same files
        return


def _move_objects(filesystem: pafs.FileSystem, source: str, goal: str) -> None:
    info = filesystem.get_file_info(source)
    below = filesystem.get_file_info(pafs.FileSelector(source, allow_not_found=True, recursive=True))
    for each in [info, *below]:
        if each.type != pafs.FileType.File:
            continue
        to = goal + each.path.removeprefix(source)
        if each.size <= _COPIED_AT_ONCE:
            filesystem.copy_file(each.path, to)
        else:
            pafs.copy_files(each.path, to, source_filesystem=filesystem, destination_filesystem=filesystem)
        filesystem.delete_file(each.path)
    if info.type == pafs.FileType.Directory:
        filesystem.delete_dir(source)
