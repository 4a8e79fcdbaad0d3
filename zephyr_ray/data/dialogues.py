"""Dialogues to imitate: raw rows in any known layout, normalized, cleaned as the recipe says, each once.

Reads `dialogues.train`. Writes `data` (`schemas.DIALOGUES`), `dropped` (`schemas.DROPPED_DIALOGUES`: what was left out,
with the reason, the matching text and the whole dialogue), `changed` (`schemas.CHANGED`: every turn that a step of
cleaning changed, before and after), and a picture of all that: report.html.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from zephyr_ray.cluster import connect
from zephyr_ray.cluster.preload import CLEANING
from zephyr_ray.config.cleaning import Casing
from zephyr_ray.config.data import Dialogues
from zephyr_ray.config.section import Values, semantic
from zephyr_ray.data import dialogues_report
from zephyr_ray.data.cleaning.benchmark_files import fingerprints
from zephyr_ray.data.cleaning.chain import StepCount, StepCounts, clean
from zephyr_ray.data.cleaning.contamination_counts import contaminated_by
from zephyr_ray.data.cleaning.decontaminate import read_benchmarks
from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.cleaning.near_duplicates import drop_near_duplicates
from zephyr_ray.data.cleaning.steps import Cleaning
from zephyr_ray.data.cleaning.train_overlap import OPENINGS, drop_in_training
from zephyr_ray.data.dialogue_counts import count_read
from zephyr_ray.data.formats import layouts
from zephyr_ray.data.formats.messages import Message, as_number
from zephyr_ray.data.io import drop_report, file_tasks, lengths, resume, sources, writer
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.rows import decode, dropped_row, mixed_schema, raw_rows
from zephyr_ray.data.io.writer import Report, RowProgress, changes_of
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import CHANGE, DIALOGUES, DROPPED_DIALOGUES, Dropped, Reason, storable

SCORE = pa.field("score", pa.float64())
"""A further column of dialogues whose rows have a score that they are to be selected by."""


def stage(section: Dialogues, seed: int, generated: Stage | None = None) -> Stage:
    """The stage `dialogues`.

    Args:
        section: What is read.
        seed: What a function is called with.
        generated: What is read where `section.train` is `generated`; None: the recipe makes none.
    """
    is_own = section.train == sources.GENERATED
    inputs = {"generated_dialogues": generated} if is_own and generated else {}
    given = None if is_own else section.train
    outside = sources.OutsideRows("dialogues", given)

    def make(context: StageContext) -> Manifest:
        own = context.input("generated_dialogues").uris() if inputs else None
        read = section.model_copy(update={"train": own or outside.at_commits})
        report = make_dialogues(read, seed, context.artifact, progress=context.progress)
        return examined(report, section.max_dropped, context.artifact)

    def check() -> None:
        sources.check_named("dialogues.train", section.train)
        if is_own and not inputs:
            raise UserError("dialogues.train=generated: this recipe makes no dialogues; give it a generation section")

    train, split = sources.semantic_source(section.train)
    return Stage(
        "dialogues",
        "rows",
        {"dialogues": settings(section).replaced(train=train, split=split), "seed": seed},
        make,
        inputs=inputs,
        outside=lambda: outside.fingerprints() | fingerprints(section.decontaminate, "dialogues.decontaminate"),
        commits=outside.commits,
        local_files=sources.local_files("dialogues.train", given),
        preload=CLEANING,
        check=check,
    )


def examined(report: Report, max_dropped: float, artifact: Artifact) -> Manifest:
    """The manifest's own part, with what became of dialogues in each step. Raises as `drop_report.check`."""
    made, by_step = drop_report.examined(report, max_dropped, artifact), _by_step(report)
    return made | by_step | {"lines": [*made["lines"], *by_step.get("lines", ())]}


def settings(section: Dialogues) -> Values:
    """The section's values that dialogues are made from, its sources too; of `select` the column with scores."""
    values, column = semantic(section).without("held_out", "select"), score_column(section)
    return values.replaced(score_column=column) if column else values


def score_column(section: Dialogues) -> str | None:
    """The column of raw rows whose number is kept as a score, if there is one."""
    return section.select.column if section.select else None


def make_dialogues(
    section: Dialogues,
    seed: int,
    artifact: Artifact,
    *,
    progress: RowProgress | None = None,
    split: str = "train",
    trained_on: Artifact | None = None,
) -> Report:
    """Writes the dialogues that the section names, and their report. A row that an earlier try has cleaned and kept is
    not cleaned again.

    Args:
        section: What is read, and how it is cleaned.
        seed: What a function is called with.
        artifact: What is written.
        progress: Told of rows as they are done.
        split: That is read of a dataset that is given as text.
        trained_on: Dialogues; one that opens as one of these is left out.

    Raises:
        UserError: The data, or a file of benchmark prompts, is missing or cannot be read.
    """
    assert section.train is not None
    cleaning = _cleaning(section, split, seed)
    resume.adopt_first_written(artifact)
    cpus = connect.busy_cpus()
    rows = resume.raw_rows_left(sources.read_rows(section.train, split, seed, num_cpus=cpus), artifact, cpus)
    column = score_column(section)
    make_rows = functools.partial(to_dialogues, cleaning=cleaning, score_column=column)
    report = writer.write(
        rows,
        artifact,
        schema_of(column),
        measure=_measure,
        make=make_rows,
        progress=progress,
        keep=True,
        dropped=DROPPED_DIALOGUES,
        num_cpus=cpus,
    )
    report = _with_earlier_changes(report, artifact, cleaning)
    report.noted |= contaminated_by(artifact, report)
    read, clusters = count_read(artifact, report), None
    report = drop_repeated(artifact, report, "dialogue_id", DROPPED_DIALOGUES)
    if section.near_duplicates is not None:
        report, clusters = drop_near_duplicates(artifact, report, section.near_duplicates)
        report.noted |= {"clusters_of_near_duplicates": sum(clusters.sizes.values())}
    if trained_on is not None:
        report = drop_in_training(artifact, report, trained_on, OPENINGS, DROPPED_DIALOGUES)
    files = dialogues_report.write_report(artifact, section, report, read, clusters=clusters)
    return replace(report, files=report.files | dict.fromkeys(files, 0))


def _cleaning(section: Dialogues, split: str, seed: int) -> Cleaning:
    benchmarks = read_benchmarks(section.decontaminate, section.decontaminate_words, "dialogues.decontaminate")
    if not any(isinstance(step, Casing) for step in section.steps):
        return Cleaning(section.steps, benchmarks)
    import ray

    from zephyr_ray.data.cleaning import learned_case

    assert section.train is not None
    cpus = connect.busy_cpus()
    lexicon = learned_case.learn(sources.read_rows(section.train, split, seed, num_cpus=cpus), cpus)
    return Cleaning(section.steps, benchmarks, ray.put(lexicon))


def schema_of(score_column: str | None) -> pa.Schema:
    """`schemas.DIALOGUES`, with a score if the rows have one."""
    return DIALOGUES.append(SCORE) if score_column else DIALOGUES


def to_dialogues(raw: pa.Table, *, cleaning: Cleaning, score_column: str | None = None) -> tuple[pa.Table, StepCounts]:
    """Raw rows (`sources.RAW_ROW`) -> dialogues, with what was changed in them, and dropped rows; and what the steps
    count."""
    steps, counts = cleaning.steps(), StepCounts.of(cleaning.names)
    rows: list[dict[str, Any]] = []
    for source, value in raw_rows(raw):
        read = None
        try:
            row_read = decode(value)
            read = layouts.dialogue_messages(row_read)
            scored = {} if score_column is None else {"score": _score(row_read, score_column)}
            messages, changes = clean(read, steps, counts)
            row = layouts.checked_dialogue(messages)
        except Dropped as dropped:
            rows.append(dropped_row(source, dropped) | {"messages": read and _storable(read)})
        else:
            rows.append({"source": source, **row, **scored, "changes": [change._asdict() for change in changes]})
    schema = mixed_schema(schema_of(score_column)).append(pa.field("changes", pa.list_(CHANGE)))
    return pa.Table.from_pylist(rows, schema=schema), counts


def _score(row: Mapping[str, Any], column: str) -> float:
    """The number in a column of a row.

    Raises:
        Dropped: There is none.
    """
    score = as_number(row.get(column))
    if score is None:
        raise Dropped(Reason.UNSCORED, f"{column}: {row.get(column)!r} is no number")
    return score


def _storable(messages: Sequence[Message]) -> list[Message]:
    return [{name: storable(text) for name, text in message.items()} for message in messages]


def _with_earlier_changes(report: Report, artifact: Artifact, cleaning: Cleaning) -> Report:
    """The report with what earlier tries changed in the rows that they kept."""
    counts = StepCounts.of(cleaning.names)
    counts.add(report.tally or StepCounts())
    report.tally = counts
    there = {posixpath.join("changed", name) for name in artifact.names("changed")} if artifact.adopted else set()
    files = [changes_of(name) for name in artifact.adopted if changes_of(name) in there]
    calls = [(group, artifact) for group in file_tasks.groups(files)]
    for found, rows in file_tasks.results(_count_changes, calls):
        report.files |= rows
        counts.add(found)
    for count in counts.steps.values():
        count.seen += sum(report.files[name] for name in artifact.adopted)
    return report


def _count_changes(names: Sequence[str], artifact: Artifact) -> tuple[StepCounts, dict[str, int]]:
    """The dialogues that each step changed, and the rows of each file."""
    counts, rows = StepCounts(), {}
    for name in names:
        with open_parquet(posixpath.join(artifact.path, name), artifact.run.filesystem) as file:
            table = file.read(["source", "step"])
        rows[name] = table.num_rows
        for step in table.group_by(["source", "step"]).aggregate([])["step"].to_pylist():
            counts.add(StepCounts({step: StepCount(changed=1)}))
    return counts, rows


def _by_step(report: Report) -> Manifest:
    """What became of the dialogues in each step, for the manifest and for a person."""
    counts: dict[str, StepCount] = report.tally.steps
    if not counts:
        return {}
    width = max(map(len, counts))
    return {
        "steps": {name: asdict(count) for name, count in counts.items()},
        "lines": [
            f"  {name:{width}}  {count.seen:,} seen, {count.changed:,} changed, {count.dropped:,} dropped, "
            f"{count.seconds:.1f} CPU-seconds"
            for name, count in counts.items()
        ],
    }


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("messages",))
