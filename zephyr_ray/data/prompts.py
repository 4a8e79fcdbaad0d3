"""reads: rows of prompts in any known layout, or the embedded world -> writes: prompts"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray.data

from zephyr_ray.artifacts import Artifact
from zephyr_ray.data import layouts, measures, sink, sources
from zephyr_ray.data.chunks import chunks_of, split_lines
from zephyr_ray.data.repeated import drop_repeated
from zephyr_ray.data.rows import convert
from zephyr_ray.data.sink import Progress, Report
from zephyr_ray.recipe import Recipe
from zephyr_ray.schemas import PROMPTS


def make_prompts(recipe: Recipe, artifact: Artifact, *, progress: Progress | None = None) -> Report:
    """Writes each different prompt that a recipe names once.

    Raises:
        UserError: The data is missing or cannot be read.
    """
    section = recipe.prompts
    raw = _tiny(recipe) if section.train == "tiny" else sources.read_rows(section.train, section.split)
    make_rows = functools.partial(convert, to_row=layouts.prompt, kept=PROMPTS)
    rows = raw.map_batches(make_rows, batch_format="pyarrow", batch_size=None)
    report = sink.write(rows, artifact, PROMPTS, measure=_measure, progress=progress)
    return drop_repeated(artifact, report, "prompt_id")


def _tiny(recipe: Recipe) -> ray.data.Dataset:
    item = {"count": recipe.tiny.preference_prompts, "seed": recipe.run.seed}
    return sources.stream([item], _tiny_chunks).map_batches(split_lines, batch_format="pyarrow", batch_size=None)


def _tiny_chunks(batch: pa.Table) -> Iterator[pa.Table]:
    from zephyr_ray.tiny import world

    (item,) = batch.to_pylist()
    instructions = world.prompts("preferences", item["count"], item["seed"])
    yield from chunks_of("tiny", (json.dumps({"prompt": text}).encode() for text in instructions))


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return measures.characters(kept, ("messages",))
