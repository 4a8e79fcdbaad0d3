"""Dialogues to imitate: raw rows in any known layout, normalized, each once."""

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
from zephyr_ray.recipe import Dialogues, Tiny
from zephyr_ray.schemas import DIALOGUES
from zephyr_ray.section import semantic

if TYPE_CHECKING:
    import ray.data


def stage(section: Dialogues, seed: int, tiny: Tiny) -> Stage:
    """The stage `dialogues`."""

    def make(context: StageContext) -> Manifest:
        report = make_dialogues(section, seed, tiny, context.artifact, progress=context.progress)
        return doctor.examined(report, section.max_dropped, context.artifact)

    return Stage(
        "dialogues",
        "rows",
        {"dialogues": semantic(section), "tiny": semantic(tiny) if section.train == "tiny" else None, "seed": seed},
        make,
        outside=lambda: sources.fingerprints("dialogues", section.train),
        local_files=sources.local_files("dialogues.train", section.train),
    )


def make_dialogues(
    section: Dialogues, seed: int, tiny: Tiny, artifact: Artifact, *, progress: Progress | None = None
) -> Report:
    """Writes the dialogues that the section names.

    Raises:
        UserError: The data is missing or cannot be read.
    """
    raw = _tiny(seed, tiny) if section.train == "tiny" else sources.read_rows(section.train, section.split)
    make_rows = functools.partial(convert, to_row=layouts.dialogue, kept=DIALOGUES)
    rows = raw.map_batches(make_rows, batch_format="pyarrow", batch_size=None)
    report = sink.write(rows, artifact, DIALOGUES, measure=_measure, progress=progress)
    return drop_repeated(artifact, report, "dialogue_id")


def _tiny(seed: int, tiny: Tiny) -> ray.data.Dataset:
    item = {"count": tiny.dialogues, "seed": seed, "flawed": tiny.flawed}
    return sources.stream([item], _tiny_chunks).map_batches(split_lines, batch_format="pyarrow", batch_size=None)


def _tiny_chunks(batch: pa.Table) -> Iterator[pa.Table]:
    from zephyr_ray.tiny import world

    (item,) = batch.to_pylist()
    rows = world.dialogues(item["count"], item["seed"], item["flawed"])
    yield from chunks_of("tiny", (json.dumps(row).encode() for row in rows))


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return measures.characters(kept, ("messages",))
