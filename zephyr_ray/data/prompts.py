"""Prompts to answer: raw rows in any known layout, each prompt once."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from zephyr_ray.artifacts import Artifact
from zephyr_ray.data import doctor, layouts, measures, sink, sources
from zephyr_ray.data.chunks import chunks_of, split_lines
from zephyr_ray.data.repeated import drop_repeated
from zephyr_ray.data.rows import convert
from zephyr_ray.data.sink import Progress, Report
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.recipe import Tiny
from zephyr_ray.recipe_feedback import Prompts
from zephyr_ray.schemas import PROMPTS
from zephyr_ray.section import semantic

if TYPE_CHECKING:
    import ray.data


def stage(section: Prompts, seed: int, tiny: Tiny) -> Stage:
    """The stage `prompts`."""

    def make(context: StageContext) -> Manifest:
        report = make_prompts(section, seed, tiny, context.artifact, progress=context.progress)
        return doctor.examined(report, section.max_dropped, context.artifact)

    return Stage(
        "prompts",
        "rows",
        {"prompts": semantic(section), "tiny": semantic(tiny) if section.train == "tiny" else None, "seed": seed},
        make,
        outside=lambda: sources.fingerprints("prompts", section.train),
        local_files=sources.local_files("prompts.train", section.train),
    )


def make_prompts(
    section: Prompts, seed: int, tiny: Tiny, artifact: Artifact, *, progress: Progress | None = None
) -> Report:
    """Writes each different prompt that the section names once.

    Raises:
        UserError: The data is missing or cannot be read.
    """
    raw = _tiny(seed, tiny) if section.train == "tiny" else sources.read_rows(section.train, section.split)
    make_rows = functools.partial(convert, to_row=layouts.prompt, kept=PROMPTS)
    rows = raw.map_batches(make_rows, batch_format="pyarrow", batch_size=None)
    report = sink.write(rows, artifact, PROMPTS, measure=_measure, progress=progress)
    return drop_repeated(artifact, report, "prompt_id")


def _tiny(seed: int, tiny: Tiny) -> ray.data.Dataset:
    item = {"count": tiny.preference_prompts, "seed": seed}
    return sources.stream([item], _tiny_chunks).map_batches(split_lines, batch_format="pyarrow", batch_size=None)


def _tiny_chunks(batch: pa.Table) -> Iterator[pa.Table]:
    from zephyr_ray.tiny import world

    (item,) = batch.to_pylist()
    instructions = world.prompts("preferences", item["count"], item["seed"])
    yield from chunks_of("tiny", (json.dumps({"prompt": text}).encode() for text in instructions))


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return measures.characters(kept, ("messages",))
