"""What a run was made of: its recipe, the versions, the code's commit, fingerprints, time and cost, and what differs
between runs."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from zephyr_ray.config.recipe import Recipe
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.reporting.run_stages import MadeStage, Round

_RECIPE = "recipe.yaml"
_SHOWN_NONE = "\u2013"


@dataclass(frozen=True)
class Cost:
    """What a stage took."""

    stage: str
    status: str
    fingerprint: str
    seconds: float | None
    requests: int | None
    """Replies of servers, of all tries."""
    tokens: int | None
    """Read and generated."""
    usd: float | None
    pages: list[tuple[str, str]]
    """The stage's own reports: name, and where they lie relative to the root."""


@dataclass(frozen=True)
class Difference:
    """A field of the recipe that is not the same in all runs."""

    field: str
    values: list[str]
    """One of each run."""


def recipe_text(run: Run, folder: str = "") -> str:
    """The resolved recipe of a run, or of a round that has its own; empty where there is none.

    Args:
        run: The run.
        folder: Of the round, below the root.
    """
    for place in dict.fromkeys((folder, "")):
        try:
            with run.filesystem.open_input_stream(posixpath.join(run.path, place, _RECIPE)) as stream:
                return bytes(stream.read()).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
    return ""


def recipe_fields(text: str) -> dict[str, Any]:
    """A recipe's fields by dotted names, a list's members by theirs; of text that is no YAML mapping, none.

    A field that the recipe's version did not have has today's default: the run was made as if it were there.
    """
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    if not isinstance(read, dict):
        return {}
    found = _flat(read)
    places = {".".join(parts[:count]) for parts in (name.split(".") for name in found) for count in range(len(parts))}
    defaults = _flat(Recipe().model_dump(mode="json"))
    return found | {name: value for name, value in defaults.items() if name not in found and name not in places}


def differences(recipes: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The fields that are not the same in all recipes, without where the runs lie; null is as good as absent."""
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    return [
        Difference(name, [_shown(each[name]) if name in each else _SHOWN_NONE for each in recipes])
        for name in names
        if name != "run.root" and any(each.get(name) != recipes[0].get(name) for each in recipes)
    ]


def _shown(value: Any) -> str:
    """A value as a recipe writes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def costs(found: Round) -> list[Cost]:
    """What each stage took, in order."""
    return [_cost(stage, found.run) for stage in found.stages]


def versions(stages: Sequence[MadeStage]) -> dict[str, list[str]]:
    """The versions of Python, the packages and the code's commit, by name; several where stages were made by others."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        for name, version in stage.manifest.get("environment", {}).items():
            if str(version) not in found.setdefault(str(name), []):
                found[name].append(str(version))
    return found


def commits(stages: Sequence[MadeStage]) -> dict[str, str]:
    """The commits of the hub's models and datasets that stages read, by id."""
    return {str(name): str(commit) for stage in stages for name, commit in stage.manifest.get("commits", {}).items()}


def _cost(stage: MadeStage, run: Run) -> Cost:
    manifest = stage.manifest
    asked = manifest.get("asked") or {}
    tokens = asked.get("prompt_tokens", 0) + asked.get("tokens", 0) if asked else None
    files = [each if isinstance(each, str) else each.get("name", "") for each in manifest.get("files", ())]
    here = posixpath.relpath(stage.artifact.path, run.path)
    pages = [
        (name, posixpath.join(here, name)) for name in files if "/" not in name and name.endswith((".html", ".md"))
    ]
    return Cost(
        stage.name,
        stage.status,
        str(manifest.get("fingerprint", ""))[:12],
        manifest.get("seconds"),
        asked.get("requests"),
        tokens,
        asked.get("usd"),
        pages,
    )


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    if isinstance(value, list) and value and all(isinstance(each, dict) and each.get("name") for each in value):
        value = {str(each["name"]): {key: part for key, part in each.items() if key != "name"} for each in value}
    if isinstance(value, dict) and value:
        return {
            name: each
            for key, part in value.items()
            for name, each in _flat(part, f"{at}.{key}" if at else str(key)).items()
        }
    return {at: value}
