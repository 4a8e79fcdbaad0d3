"""Dialogues to imitate: raw rows in any known layout, normalized, each once."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from zephyr_ray.config.data import Dialogues
from zephyr_ray.config.section import semantic
from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.formats import layouts
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import convert
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import DIALOGUES


def stage(section: Dialogues, seed: int) -> Stage:
    """The stage `dialogues`."""

    outside = sources.OutsideRows("dialogues", section.train)

    def make(context: StageContext) -> Manifest:
        read = section.model_copy(update={"train": outside.at_commits})
        report = make_dialogues(read, seed, context.artifact, progress=context.progress)
        return drop_report.examined(report, section.max_dropped, context.artifact)

    train, split = sources.semantic_source(section.train)
    settings = {name: value for name, value in semantic(section).items() if name != "held_out"}
    return Stage(
        "dialogues",
        "rows",
        {"dialogues": settings | {"train": train, "split": split}, "seed": seed},
        make,
        outside=outside.fingerprints,
        commits=outside.commits,
        local_files=sources.local_files("dialogues.train", section.train),
        check=lambda: sources.check_named("dialogues.train", section.train),
    )


def make_dialogues(
    section: Dialogues, seed: int, artifact: Artifact, *, progress: RowProgress | None = None, split: str = "train"
) -> Report:
    """Writes the dialogues that the section names; of a dataset that is given as text those of a split.

    Raises:
        UserError: The data is missing or cannot be read.
    """
    assert section.train is not None
    raw = sources.read_rows(section.train, split, seed)
    make_rows = functools.partial(convert, to_row=layouts.dialogue, kept=DIALOGUES)
    rows = raw.map_batches(make_rows, batch_format="pyarrow", batch_size=None)
    report = writer.write(rows, artifact, DIALOGUES, measure=_measure, progress=progress)
    return drop_repeated(artifact, report, "dialogue_id")


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("messages",))
