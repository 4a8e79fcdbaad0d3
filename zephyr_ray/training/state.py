"""The resumable state of a training: Ray Train's folder of checkpoints, one for each driver that worked on it.

<stage>/training_state/e<epoch>-ray/      its checkpoints, and Ray Train's list of them

A driver goes on from the last checkpoint of the drivers before it, and writes only to a folder of its own.
"""

from __future__ import annotations

import posixpath

from zephyr_ray.pipeline import epochs
from zephyr_ray.pipeline.artifacts import Artifact

FOLDER = "training_state"
_LIST = "checkpoint_manager_snapshot.json"


def own_name(output: Artifact) -> str:
    """The name of this driver's folder."""
    return epochs.written("ray", output.epoch)


def last_checkpoint(output: Artifact) -> str | None:
    """The path, in the run's filesystem, of the last checkpoint that an earlier driver has stored, if there is one.

    Without a lease Ray Train finds its folder by the name. If a driver was killed while Ray Train wrote its list of
    checkpoints (which Ray 2.60 does in place), that folder is deleted, for Ray Train would fail on it.
    """
    found = None
    for name in ["", *sorted(output.names(FOLDER), key=epochs.epoch_of)]:  # "": of versions without leases
        folder = posixpath.join(FOLDER, name).rstrip("/")
        try:
            listed = output.read_json(posixpath.join(folder, _LIST))
        except ValueError:
            if name == own_name(output):
                output.run.filesystem.delete_dir(posixpath.join(output.path, folder))
            continue
        latest = (listed or {}).get("latest_checkpoint_result")
        if latest and epochs.epoch_of(name) < output.epoch:
            found = posixpath.join(output.path, folder, latest["checkpoint_dir_name"])
    return found
