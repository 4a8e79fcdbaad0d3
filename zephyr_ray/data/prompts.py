"""Prompts to answer: raw rows in any known layout, each prompt once."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from zephyr_ray.config.feedback import Prompts
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
from zephyr_ray.schemas import PROMPTS


def stage(section: Prompts, seed: int, name: str = "prompts", field: str = "prompts.train") -> Stage:
    """A stage of prompts.

    Args:
        section: What is read.
        seed: What a function is called with.
        name: The stage's.
        field: The field of the recipe that says what is read.
    """
    outside = sources.OutsideRows(name, section.train)

    def make(context: StageContext) -> Manifest:
        read = section.model_copy(update={"train": outside.at_commits})
        report = make_prompts(read, seed, context.artifact, progress=context.progress)
        return drop_report.examined(report, section.max_dropped, context.artifact)

    train, split = sources.semantic_source(section.train)
    return Stage(
        name,
        "rows",
        {"prompts": semantic(section).replaced(train=train, split=split), "seed": seed},
        make,
        outside=lambda: outside.fingerprints() | fingerprints(section.decontaminate, "prompts.decontaminate"),
        commits=outside.commits,
        local_files=sources.local_files(field, section.train),
        check=lambda: sources.check_named(field, section.train),
    )


def make_prompts(section: Prompts, seed: int, artifact: Artifact, *, progress: RowProgress | None = None) -> Report:
    """Writes each different prompt that the section names once.

    Raises:
        UserError: The data, or a file of benchmark prompts, is missing or cannot be read.
    """
    assert section.train is not None
    raw = sources.read_rows(section.train, seed=seed)
    benchmarks = read_benchmarks(section.decontaminate, section.decontaminate_words, "prompts.decontaminate")
    make_rows = functools.partial(_to_prompts, benchmarks=benchmarks)
    rows = raw.map_batches(make_rows, batch_format="pyarrow", batch_size=None)
    report = writer.write(rows, artifact, PROMPTS, measure=_measure, progress=progress)
    report.noted |= contaminated_by(artifact, report)
    return drop_repeated(artifact, report, "prompt_id")


def _to_prompts(raw: pa.Table, *, benchmarks: Benchmarks | None) -> pa.Table:
    return convert(raw, to_row=checked(layouts.prompt, benchmarks), kept=PROMPTS)


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("messages",))
