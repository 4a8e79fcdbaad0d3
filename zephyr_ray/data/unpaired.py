"""Completions with labels, desirable or not, in TRL's unpaired format: what people's thumbs, files and pairs say.

Rows are those of `preferences.train`, read as `preferences` reads them, with single answers that it has no use for. A
pair becomes two rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from zephyr_ray.config.data import Preferences
from zephyr_ray.data import preferences
from zephyr_ray.data.binarize import Rule
from zephyr_ray.data.cleaning.benchmark_files import fingerprints
from zephyr_ray.data.cleaning.contamination_counts import contaminated_by
from zephyr_ray.data.cleaning.decontaminate import BenchmarkIndex, Benchmarks, read_benchmarks
from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.formats.unpaired import is_single, unpaired
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import decode, dropped_row, mixed_schema, raw_rows
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import UNPAIRED, Dropped


@dataclass
class Origins:
    """How many source rows had one answer with a label, and how many had several."""

    single_answers: int = 0
    pairs: int = 0

    def add(self, other: Origins) -> None:
        self.single_answers += other.single_answers
        self.pairs += other.pairs


def stage(section: Preferences, seed: int, judgments: Stage | None, completions: int | None = None) -> Stage:
    """The stage `unpaired`. Arguments as of `preferences.stage`, which it reads the same source as."""
    pairs = preferences.stage(section, seed, judgments, completions)
    outside = sources.OutsideRows("preferences", section.train)

    def make(context: StageContext) -> Manifest:
        judged = context.input("judgments") if pairs.inputs else None
        read = section if judged else section.model_copy(update={"train": outside.at_commits})
        report = make_unpaired(read, seed, context.artifact, judged, progress=context.progress)
        return drop_report.examined(report, section.max_dropped, context.artifact)

    return replace(
        pairs,
        kind="unpaired",
        make=make,
        outside=lambda: outside.fingerprints() | fingerprints(section.decontaminate, "preferences.decontaminate"),
        commits=outside.commits,
    )


def make_unpaired(
    section: Preferences,
    seed: int,
    artifact: Artifact,
    judgments: Artifact | None = None,
    *,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the completions that the section names, each once.

    Raises:
        UserError: The data, or a file of benchmark prompts, is missing or cannot be read.
    """
    benchmarks = read_benchmarks(section.decontaminate, section.decontaminate_words, "preferences.decontaminate")
    make_rows = functools.partial(to_unpaired, rule=preferences.rule_of(section, seed), benchmarks=benchmarks)
    raw = preferences.read_raw(section, seed, judgments)
    report = writer.write(raw, artifact, UNPAIRED, measure=_measure, make=make_rows, progress=progress)
    origins = report.tally or Origins()
    report = drop_repeated(artifact, report, "completion_id")
    report.noted = vars(origins) | contaminated_by(artifact, report)
    return report


def to_unpaired(raw: pa.Table, *, rule: Rule, benchmarks: Benchmarks | None = None) -> tuple[pa.Table, Origins]:
    """Raw rows (`sources.RAW_ROW`) -> completions and dropped rows, and where they came from.

    The source of a row that became several completions is followed by the completion's number: file:line/1.
    """
    index, origins = benchmarks.index() if benchmarks else None, Origins()
    rows: list[dict[str, Any]] = []
    for source, value in raw_rows(raw):
        try:
            decoded = decode(value)
            found = unpaired(decoded, rule, check_prompt=index.check if index else None)
        except Dropped as dropped:
            rows.append(dropped_row(source, dropped))
            continue
        origins.add(Origins(1, 0) if is_single(decoded) else Origins(0, 1))
        for part, each in enumerate(found, 1):
            name = source if len(found) == 1 else f"{source}/{part}"
            checked = _with_checked_answer(each, index) if index is not None else each
            rows.append(dropped_row(name, checked) if isinstance(checked, Dropped) else {"source": name, **checked})
    return pa.Table.from_pylist(rows, schema=mixed_schema(UNPAIRED)), origins


def _with_checked_answer(row: dict[str, Any] | Dropped, index: BenchmarkIndex) -> dict[str, Any] | Dropped:
    if isinstance(row, Dropped):
        return row
    try:
        index.check(row["completion"])
    except Dropped as dropped:
        return dropped
    return row


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("prompt", "completion"))
