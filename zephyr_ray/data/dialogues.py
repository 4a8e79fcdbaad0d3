"""Dialogues to imitate: raw rows in any known layout, normalized, each once."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from zephyr_ray.config.data import Dialogues
from zephyr_ray.config.section import semantic
from zephyr_ray.data.cleaning.benchmark_files import fingerprints
from zephyr_ray.data.cleaning.contamination_counts import contaminated_by
from zephyr_ray.data.cleaning.decontaminate import Benchmarks, checked, read_benchmarks
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
    return Stage(
        "dialogues",
        "rows",
        {"dialogues": semantic(section) | {"train": train, "split": split}, "seed": seed},
        make,
        outside=lambda: outside.fingerprints() | fingerprints(section.decontaminate, "dialogues.decontaminate"),
        commits=outside.commits,
        local_files=sources.local_files("dialogues.train", section.train),
        check=lambda: sources.check_named("dialogues.train", section.train),
    )


def make_dialogues(section: Dialogues, seed: int, artifact: Artifact, *, progress: RowProgress | None = None) -> Report:
    """Writes the dialogues that the section names.

    Raises:
        UserError: The data, or a file of benchmark prompts, is missing or cannot be read.
    """
    assert section.train is not None
    raw = sources.read_rows(section.train, seed=seed)
    benchmarks = read_benchmarks(section.decontaminate, section.decontaminate_words, "dialogues.decontaminate")
    make_rows = functools.partial(_to_dialogues, benchmarks=benchmarks)
    rows = raw.map_batches(make_rows, batch_format="pyarrow", batch_size=None)
    report = writer.write(rows, artifact, DIALOGUES, measure=_measure, progress=progress)
    report.noted |= contaminated_by(artifact, report)
    return drop_repeated(artifact, report, "dialogue_id")


def _to_dialogues(raw: pa.Table, *, benchmarks: Benchmarks | None) -> pa.Table:
    return convert(raw, to_row=checked(layouts.dialogue, benchmarks), kept=DIALOGUES)


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("messages",))
