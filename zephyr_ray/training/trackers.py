"""Experiment trackers of a training (`training.report_to`): whether they are installed, and where they write.

Each writes beside the artifact, offline, unless the environment names a server. Imports nothing heavy: every command
checks, dry runs too.
"""

from __future__ import annotations

import importlib.util
import os
import posixpath
from collections.abc import Iterable, Mapping

from zephyr_ray.errors import UserError

PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "trackio": ("trackio", "trackio"),
    "clearml": ("clearml", "clearml"),
    "codecarbon": ("codecarbon", "codecarbon"),
    "comet_ml": ("comet_ml", "comet-ml"),
    "dagshub": ("dagshub", "dagshub mlflow"),
    "dvclive": ("dvclive", "dvclive"),
    "swanlab": ("swanlab", "swanlab"),
}
"""Trackers by transformers' names: the module that has to be there, and what pip installs it by. The first four are
tried here, without a network; the others are transformers' own."""

FOLDERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""Where the first four write, below the stage's folder."""

_SERVERS = {"wandb": ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"), "mlflow": ("MLFLOW_TRACKING_URI",)}
"""Who has set one of these has chosen a server, or none."""


def check_trackers(stage: str, names: Iterable[str]) -> None:
    """Refuses trackers that cannot be used, before any work.

    Raises:
        UserError: Naming the tracker, and how to install it.
    """
    for name in names:
        field = f"{stage}.training.report_to={name}"
        if name not in PACKAGES:
            raise UserError(f"{field}: no such tracker; there are {', '.join(PACKAGES)}, and [] for none")
        module, package = PACKAGES[name]
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"{field}: {module} is not installed; pip install {package} (on every node), or leave it out"
            )


def prepare(folder: str, names: Iterable[str]) -> None:
    """Makes the trackers of this process write below a folder (`environment`)."""
    if "mlflow" in names:
        os.makedirs(os.path.join(folder, "mlflow"), exist_ok=True)  # SQLite makes the file only
    os.environ.update(environment(folder))


def environment(folder: str, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which trackers write below a folder, offline; what the user has set stays.

    Args:
        folder: The artifact's, or one of a worker's disk.
        given: The environment so far.
    """
    made = {
        "TENSORBOARD_LOGGING_DIR": posixpath.join(folder, "tensorboard"),
        "WANDB_DIR": folder,  # it makes the folder `wandb` itself
        "TRACKIO_DIR": posixpath.join(folder, "trackio"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if not any(name in given for name in _SERVERS["wandb"]):
        made["WANDB_MODE"] = "offline"
    if not any(name in given for name in _SERVERS["mlflow"]):
        made["MLFLOW_TRACKING_URI"] = f"sqlite:///{posixpath.join(folder, 'mlflow', 'mlflow.db')}"
    return made | {name: given[name] for name in made if name in given and name != "TENSORBOARD_LOGGING_DIR"}
