"""Status of a stage: done, stale (and why), unfinished or to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zephyr_ray.pipeline.artifacts import Artifact


@dataclass(frozen=True)
class Status:
    """The status of a stage."""

    kind: Literal["done", "stale", "unfinished", "to do"]
    changed: tuple[str, ...] = ()
    """What has changed: fields of the recipe, `input NAME`."""

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(self.changed)})" if self.changed else self.kind


def status_of(artifact: Artifact, fingerprint: str, config: Any, inputs: Mapping[str, str]) -> Status:
    """The status of a stage.

    Args:
        artifact: The stage's artifact.
        fingerprint: The fingerprint that it would have if it were made now.
        config: The semantic part of the recipe that it would be made from.
        inputs: Fingerprints of what it would read.
    """
    unfinished = artifact.read_json("unfinished.json")
    if unfinished is not None and unfinished["fingerprint"] == fingerprint:
        return Status("unfinished")
    manifest = artifact.manifest()
    if manifest is None:
        return Status("to do")
    if manifest["fingerprint"] == fingerprint:
        return Status("done")
    fields = tuple(_changes(manifest["config"], config))
    before = manifest["inputs"]
    names = [name for name in sorted({*before, *inputs}) if before.get(name) != inputs.get(name)]
    return Status("stale", (*fields, *(f"input {name}" for name in names)))


def _changes(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Dotted names of the values that differ between two JSON values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _changes(before.get(key), after.get(key), f"{at}.{key}" if at else str(key))
    elif before != after:
        yield at or "config"
