"""Dialogues to imitate: raw rows in any known layout, normalized, each once."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from zephyr_ray.artifacts import Artifact
from zephyr_ray.data import doctor, layouts, measures, sink, sources
from zephyr_ray.data.repeated import drop_repeated
from zephyr_ray.data.rows import convert
from zephyr_ray.data.sink import Progress, Report
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.recipe import Dialogues
from zephyr_ray.schemas import DIALOGUES
from zephyr_ray.section import semantic


def stage(section: Dialogues, seed: int) -> Stage:
    """The stage `dialogues`."""

    def make(context: StageContext) -> Manifest:
        report = make_dialogues(section, seed, context.artifact, progress=context.progress)
        return doctor.examined(report, section.max_dropped, context.artifact)

    return Stage(
        "dialogues",
        "rows",
        {"dialogues": semantic(section), "seed": seed},
        make,
        outside=lambda: sources.fingerprints("dialogues", section.train),
        local_files=sources.local_files("dialogues.train", section.train),
        check=lambda: sources.check_named("dialogues.train", section.train),
    )


def make_dialogues(section: Dialogues, seed: int, artifact: Artifact, *, progress: Progress | None = None) -> Report:
    """Writes the dialogues that the section names.

    Raises:
        UserError: The data is missing or cannot be read.
    """
    assert section.train is not None
    raw = sources.read_rows(section.train, section.split, seed)
    make_rows = functools.partial(convert, to_row=layouts.dialogue, kept=DIALOGUES)
    rows = raw.map_batches(make_rows, batch_format="pyarrow", batch_size=None)
    report = sink.write(rows, artifact, DIALOGUES, measure=_measure, progress=progress)
    return drop_repeated(artifact, report, "dialogue_id")


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return measures.characters(kept, ("messages",))
