"""Writes a checkpoint's lineage and model card into its folder, so that they go where it goes."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.lineage.chain import of_lineage
from zephyr_ray.pipeline.lineage.facts import FILE, Lineage, as_json
from zephyr_ray.pipeline.lineage.model_card import card
from zephyr_ray.pipeline.lineage.reading import stages_of, with_earlier_runs


def write_to_checkpoint(artifact: Artifact, manifest: Mapping[str, Any], recipe: str) -> None:
    """Writes lineage.json, and README.md of a model that was trained, into the checkpoint of a stage that is about to
    be finished.

    Args:
        artifact: The stage's.
        manifest: The one that it is going to have.
        recipe: The resolved recipe.

    Raises:
        UserError: Another driver has taken the run over.
    """
    stages = stages_of(artifact.run, {artifact.stage: manifest}, skip_damaged=True)  # a training is not lost by others
    behind = of_lineage(stages, artifact.run.root, [artifact.stage], with_evaluations=False)
    lineage = with_earlier_runs(behind)
    folder = manifest["checkpoint"]
    text = json.dumps({**as_json(lineage), "recipe": recipe}, indent=1, ensure_ascii=False) + "\n"
    artifact.write_text(posixpath.join(folder, FILE), text)
    if manifest.get("trained"):
        artifact.write_text(posixpath.join(folder, "README.md"), card(lineage, last_metrics(artifact)))


def card_of(lineage: Lineage, artifact: Artifact) -> str:
    """The model card of a model as it is now, with the evaluations that its run has by now."""
    return card(lineage, last_metrics(artifact))


def last_metrics(artifact: Artifact) -> dict[str, float]:
    """The numbers that a training logged last, from its metrics.jsonl; empty if there are none."""
    try:
        with artifact.run.filesystem.open_input_stream(posixpath.join(artifact.path, "metrics.jsonl")) as stream:
            rows = [json.loads(line) for line in stream.read().splitlines()]
    except FileNotFoundError:
        return {}
    last: Mapping[str, Any] = next((row for row in reversed(rows) if "loss" in row), {})
    return {name: value for name, value in last.items() if isinstance(value, int | float)}
