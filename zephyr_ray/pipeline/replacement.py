"""What making stages anew would replace, and what that cost: it is not done without being asked for by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.stage import Identity, Stage
from zephyr_ray.pipeline.status import Status, status_of

_WORK = ("data", "training_state")


@dataclass(frozen=True)
class Replacement:
    """An artifact that would be replaced: a finished one, or an unfinished one that models have worked for."""

    stage: Stage
    status: Status
    """Stale, with what has changed."""
    cost: str
    """For a person."""

    def __str__(self) -> str:
        return f"{self.stage.name} ({self.cost}; changed: {', '.join(self.status.changed)})"


def replacements(run: Run, stages: Sequence[Stage], known: Mapping[Stage, Identity]) -> list[Replacement]:
    """What bringing these stages up to date would replace."""
    found = []
    for stage in stages:
        artifact, identity = run.artifact(stage.name), known[stage]
        status = status_of(artifact, identity.fingerprint, stage.config, identity.inputs)
        if status.kind != "stale":
            continue
        manifest = artifact.manifest()
        if manifest is not None:
            found.append(Replacement(stage, status, f"finished; {cost_of(manifest)}"))
        elif stage.resources and any(artifact.has_files(folder) for folder in _WORK):
            found.append(Replacement(stage, status, f"unfinished; {_work_of(artifact)}"))
    return found


def check_overwrite(run: Run, found: Sequence[Replacement], overwrite: Collection[str]) -> None:
    """Refuses to replace what the user has not named.

    Raises:
        UserError: Names every stage, what has changed, and what it cost.
    """
    refused = [each for each in found if each.stage.name not in overwrite]
    if refused:
        flags = " ".join(f"--overwrite {each.stage.name}" for each in refused)
        raise UserError(
            f"{run.root}: this would replace {', '.join(map(str, refused))}; nothing was touched. Give this recipe a "
            f"root of its own with --set run.root=, or add {flags} to move the old to <stage>.replaced-<fingerprint>"
        )


def cost_of(manifest: Mapping[str, Any]) -> str:
    """Rows, replies, money and time that an artifact took, as far as its manifest says."""
    parts = []
    if rows := manifest.get("counts", {}).get("out"):
        parts.append(f"{rows:,} rows")
    if asked := manifest.get("asked"):
        parts.append(f"{asked['requests']:,} replies")
        parts += [f"{asked['usd']:.2f} US dollars"] if asked["usd"] else []
    parts.append(f"{manifest.get('seconds', 0.0) / 3600:.2f} hours")
    return ", ".join(parts)


def _work_of(artifact: Artifact) -> str:
    """What an unfinished artifact has, and since when it is made."""
    begun = (artifact.unfinished() or {}).get("begun")
    parts = [f"begun {begun}"] if begun else []
    if files := len(artifact.files_that_count()):
        parts.append(f"{files:,} files of rows")
    if artifact.has_files("training_state"):
        parts.append("checkpoints of its training")
    return ", ".join(parts)
