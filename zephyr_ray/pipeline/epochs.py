"""The names of an artifact's files: which driver, by its epoch, wrote a file, and which files say how it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MANIFEST, UNFINISHED = "manifest", "unfinished"
_STATE = re.compile(rf"({MANIFEST}|{UNFINISHED})(?:-(\d{{6}}))?\.json")
_WRITTEN = re.compile(r"e(\d{6})-.*")
_CHECKPOINT = re.compile(r"checkpoint-(\d{6})")


@dataclass(frozen=True)
class States:
    """The highest epochs of an artifact's state files; -1 if there is none."""

    finished: int = -1
    begun: int = -1

    @property
    def is_finished(self) -> bool:
        return self.finished >= 0 and self.finished >= self.begun

    @property
    def is_unfinished(self) -> bool:
        return self.begun >= 0 and not self.is_finished

    @property
    def highest(self) -> int:
        return max(self.finished, self.begun)


def states(names: Iterable[str]) -> States:
    """The states that the names of files in an artifact's folder tell."""
    found = {MANIFEST: -1, UNFINISHED: -1}
    for match in map(_STATE.fullmatch, names):
        if match:
            found[match[1]] = max(found[match[1]], int(match[2] or 0))
    return States(found[MANIFEST], found[UNFINISHED])


def state_name(kind: str, epoch: int) -> str:
    """The name of a state file. Epoch 0 is that of drivers without a lease."""
    return f"{kind}-{epoch:06d}.json" if epoch else f"{kind}.json"


def is_state(name: str) -> bool:
    return _STATE.fullmatch(name) is not None


def written(name: str, epoch: int) -> str:
    """The name under which a driver writes a file."""
    return f"e{epoch:06d}-{name}" if epoch else name


def epoch_of(name: str) -> int:
    """The epoch of a file's or a checkpoint's name; 0 if it has none."""
    match = _WRITTEN.fullmatch(name) or _CHECKPOINT.fullmatch(name) or _STATE.fullmatch(name)
    return int(match[match.re.groups] or 0) if match else 0


def checkpoint_name(epoch: int) -> str:
    """The name of the folder into which a driver writes a model."""
    return f"checkpoint-{epoch:06d}" if epoch else "checkpoint"
