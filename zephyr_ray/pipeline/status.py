"""Status of a stage: done, stale (and why), unfinished or to do; and what making it anew would replace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zephyr_ray.config.section import Values
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.provenance import unknown_inputs


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
    states = artifact.states()
    record = artifact.record(states)
    if record is None or record["fingerprint"] is None:
        return Status("to do")
    if record["fingerprint"] == fingerprint or not (changed := changes(record, config, inputs)):
        return Status("done" if states.is_finished else "unfinished")
    return Status("stale", tuple(changed))


@dataclass(frozen=True)
class Difference:
    """A value that differs between what an artifact was made from and what it would be made from now."""

    field: str
    """Dotted name of a recipe's field, or `input NAME`."""
    before: Any
    after: Any
    """None where there is no such value."""


def changes(record: Mapping[str, Any], config: Any, inputs: Mapping[str, str]) -> list[str]:
    """The names of what differs. Arguments as `differences`."""
    return [each.field for each in differences(record, config, inputs)]


def differences(record: Mapping[str, Any], config: Any, inputs: Mapping[str, str]) -> list[Difference]:
    """What differs between what an artifact was made from, by its manifest, and what it would be made from now.

    A field that the manifest does not have is newer than the artifact. It counts as unchanged at its default, which
    does what was done before there was the field. An input that an earlier version did not record counts as unchanged.
    """
    before = record.get("inputs") or {}
    compared = sorted({*before, *inputs} - {*unknown_inputs(record, inputs)})
    return [
        *_differences(record.get("config"), config),
        *(
            Difference(f"input {name}", before.get(name), inputs.get(name))
            for name in compared
            if before.get(name) != inputs.get(name)
        ),
    ]


def _differences(before: Any, after: Any, at: str = "") -> Iterator[Difference]:
    """The values that differ between two JSON values."""
    if isinstance(before, dict) and isinstance(after, dict):
        defaults = after.defaults if isinstance(after, Values) else {}
        for key in dict.fromkeys([*before, *after]):
            if key not in before and key in defaults and after[key] == defaults[key]:
                continue
            yield from _differences(before.get(key), after.get(key), f"{at}.{key}" if at else str(key))
    elif isinstance(before, list) and isinstance(after, list | tuple) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{at}.{number}")
    elif before != after:
        yield Difference(at or "config", before, after)
