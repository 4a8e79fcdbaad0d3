"""Where a worker keeps on its own disk what is large and goes again: checkpoints until they are stored, the export."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
from typing import TYPE_CHECKING

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.storage import cache_root

if TYPE_CHECKING:
    from zephyr_ray.training.task import TrainJob


def check_scratch(job: TrainJob) -> None:
    """Makes the folder that the recipe names, where it is not there.

    Raises:
        UserError: It cannot be written to on this machine.
    """
    root = _root(job)
    try:
        os.makedirs(root, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"{job.stage}.training.scratch: {root} on {socket.gethostname()} cannot be written to ({error.strerror}); "
            "name a folder on a disk of the workers' nodes"
        ) from None


def own_folder(job: TrainJob) -> str:
    """An empty folder of this process's own. What processes of this training left on this machine when they were
    killed, a checkpoint perhaps, goes.

    What Ray Train and others put into a temporary folder in this process lies beside it from now on.
    """
    tempfile.tempdir = _root(job)
    mine = os.path.join(_root(job), f"{job.stage}-{content_id(job.output.uri)}-{socket.gethostname()}-")
    for folder in glob.glob(glob.escape(mine) + "*"):
        process = int(folder.removeprefix(mine))
        if process == os.getpid() or not _runs(process):
            shutil.rmtree(folder, ignore_errors=True)
    folder = f"{mine}{os.getpid()}"
    os.makedirs(folder)
    return folder


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _root(job: TrainJob) -> str:
    return os.path.abspath(os.path.expanduser(job.training.scratch or os.path.join(cache_root(), "scratch")))
