"""Which artifact has a fingerprint, and what has changed since it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.lineage.facts import StageFacts, is_replaced
from zephyr_ray.pipeline.stage import Identity
from zephyr_ray.pipeline.status import Difference, differences

_FEWEST = 4
"""Digits of a prefix."""


@dataclass(frozen=True)
class Match:
    """Something in a run that has a fingerprint."""

    fingerprint: str
    what: str
    """`artifact`, `weights`, `served model`, or `input NAME` for what came from outside."""
    stage: str
    """The stage that has it, or whose input it is."""


@dataclass(frozen=True)
class Changed:
    """How a stage differs from what would be made now, or from another run's."""

    stage: str
    compared_with: str
    """What it was compared with, in words."""
    fingerprint: str | None
    """That of the other; None if it has no such stage."""
    differences: tuple[Difference, ...] = ()
    upstream: tuple[Changed, ...] = ()
    """The same of the inputs that differ, as far as both are known."""


@dataclass(frozen=True)
class Made:
    """What a stage was made from, or would be."""

    fingerprint: str | None
    config: Any
    inputs: Mapping[str, str]


def find_fingerprint(stages: Mapping[str, StageFacts], prefix: str) -> Match:
    """The one thing of a run whose fingerprint begins so.

    Raises:
        UserError: There is none, or there are several.
    """
    if len(prefix) < _FEWEST:
        raise UserError(f"--fingerprint {prefix}: give at least {_FEWEST} digits")
    found = [each for each in _matches(stages) if each.fingerprint.startswith(prefix.lower())]
    if not found:
        known = ", ".join(f"{each.stage} {each.fingerprint[:12]}" for each in stages.values() if each.fingerprint)
        raise UserError(f"--fingerprint {prefix}: nothing in this run has it; it has {known}")
    if len({each.fingerprint for each in found}) > 1:
        listed = ", ".join(f"{each.fingerprint} ({each.what} of {each.stage})" for each in found)
        raise UserError(f"--fingerprint {prefix} is that of several: {listed}; give more digits")
    return found[0]


def recorded(stages: Mapping[str, StageFacts]) -> dict[str, Made]:
    """What the stages of a run were made from, without those that were replaced, by name."""
    return {
        name: Made(each.fingerprint, each.config, {one.name: one.fingerprint for one in each.inputs})
        for name, each in stages.items()
        if not is_replaced(name)
    }


def as_recipe(identities: Mapping[str, tuple[Any, Identity]]) -> dict[str, Made]:
    """What stages would be made from: their settings and identities, by name."""
    return {name: Made(known.fingerprint, config, known.inputs) for name, (config, known) in identities.items()}


def changed_since(
    stages: Mapping[str, StageFacts], stage: str, others: Mapping[str, Made], compared_with: str
) -> Changed:
    """How a stage differs from the one of its name among others, and so on for the inputs that differ.

    Args:
        stages: All stages of the run, by the names of their folders.
        stage: One of them.
        others: What they are compared with (`as_recipe`, `recorded`).
        compared_with: What that is, in words.
    """
    return _changed(stages, stage, others, compared_with, set())


def _changed(
    stages: Mapping[str, StageFacts], stage: str, others: Mapping[str, Made], compared_with: str, seen: set[str]
) -> Changed:
    seen.add(stage)
    facts = stages[stage]
    other = others.get(stage.partition(".replaced-")[0])
    if other is None:
        return Changed(stage, compared_with, None)
    inputs = {each.name: each.fingerprint for each in facts.inputs}
    record = {"config": facts.config, "inputs": inputs, **({"code": {}} if facts.names_all_inputs else {})}
    found = differences(record, other.config, other.inputs)
    changed_inputs = {each.field.removeprefix("input ") for each in found if each.field.startswith("input ")}
    upstream = []
    for each in facts.inputs:
        if each.name in changed_inputs and each.stage is not None and each.stage not in seen:
            upstream.append(_changed(stages, each.stage, others, compared_with, seen))
    return Changed(stage, compared_with, other.fingerprint, tuple(found), tuple(upstream))


def lines_of(changed: Changed, depth: int = 0) -> list[str]:
    """What has changed, for a person; of an input also why."""
    at = "    " * depth
    if changed.fingerprint is None:
        return [f"{at}{changed.stage}: {changed.compared_with} has no such stage"]
    if not changed.differences:
        return [f"{at}{changed.stage}: nothing has changed; {changed.compared_with} makes the same"]
    shown = [f"{at}{changed.stage}, against {changed.compared_with} ({changed.fingerprint[:12]}):"]
    for each in changed.differences:
        shown.append(f"{at}    {each.field}: {_value(each.before)} -> {_value(each.after)}")
    for upstream in changed.upstream:
        shown += lines_of(upstream, depth + 1)
    return shown


def as_json(match: Match, changed: Changed) -> dict[str, Any]:
    """Both as JSON values."""
    return {"match": vars(match), "changed": _changed_json(changed)}


def _changed_json(changed: Changed) -> dict[str, Any]:
    return {
        **vars(changed),
        "differences": [vars(each) for each in changed.differences],
        "upstream": [_changed_json(each) for each in changed.upstream],
    }


def _matches(stages: Mapping[str, StageFacts]) -> list[Match]:
    """Everything that has a fingerprint; what a stage makes before what it reads."""
    found = []
    for name, each in stages.items():
        own = (("artifact", each.fingerprint), ("weights", each.weights), ("served model", each.served_as))
        found += [Match(value, what, name) for what, value in own if value]
    made = {each.fingerprint for each in found}
    for name, each in stages.items():
        found += [
            Match(one.fingerprint, f"input {one.name}", name) for one in each.inputs if one.fingerprint not in made
        ]
    return list({each.fingerprint: each for each in reversed(found)}.values())[::-1]


def _value(value: Any) -> str:
    return "none" if value is None else str(value)
