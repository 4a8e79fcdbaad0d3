"""reads: raw preference rows in any known layout, or the embedded world; preferences -> writes: held_out_pairs

Pairs that are not trained on, made as `preferences` makes its own, without those whose prompt is trained on.
"""

from __future__ import annotations

from zephyr_ray.artifacts import Artifact
from zephyr_ray.data import sources
from zephyr_ray.data.preferences import read_tiny, write_pairs
from zephyr_ray.data.sink import Progress, Report
from zephyr_ray.recipe import Recipe


def make_held_out_pairs(
    recipe: Recipe, preferences: Artifact, artifact: Artifact, *, progress: Progress | None = None
) -> Report:
    """Writes the pairs that `preferences.held_out` names, and their report.

    Args:
        recipe: Its `preferences` section and the seed count; for the embedded world also `tiny`.
        preferences: What is trained on.
        artifact: What is written.
        progress: Told of rows as they are done.

    Raises:
        UserError: The data, or a file of benchmark prompts, is missing or cannot be read.
    """
    section, seed = recipe.preferences, recipe.run.seed
    assert section.held_out is not None
    if section.held_out == "tiny":
        raw = read_tiny("held_out", recipe.tiny.held_out_prompts, seed)
    else:
        raw = sources.read_rows(section.held_out, section.held_out_split)
    asked = section.model_copy(update={"train": section.held_out, "split": section.held_out_split})
    return write_pairs(raw, asked, seed, artifact, trained_on=preferences, progress=progress)
