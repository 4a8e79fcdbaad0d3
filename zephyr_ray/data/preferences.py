"""Preference pairs in TRL's conversational format, from raw rows in any known layout or the run's own judgments.

Which two answers of several become a pair is a function of the row and the seed alone.
Beside the rows the stage writes a picture of them: report.html and report.png.
"""

from __future__ import annotations

import dataclasses
import functools
import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.config.data import Preferences
from zephyr_ray.config.section import semantic
from zephyr_ray.data import preferences_report
from zephyr_ray.data.binarize import Rule
from zephyr_ray.data.cleaning.benchmark_files import fingerprints
from zephyr_ray.data.cleaning.contamination_counts import contaminated_by
from zephyr_ray.data.cleaning.decontaminate import BenchmarkIndex, Benchmarks, read_benchmarks
from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.cleaning.train_overlap import drop_in_training
from zephyr_ray.data.formats import layouts
from zephyr_ray.data.io import drop_report, file_tasks, lengths, sources, writer
from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.data.io.rewrite import kept_files
from zephyr_ray.data.io.rows import decode, dropped_row, mixed_schema, raw_rows
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.data.preference_counts import AnswerCounts, PairCounts, count_pairs
from zephyr_ray.errors import UserError
from zephyr_ray.judging.agreement import agreement_numbers
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import PREFERENCES, Dropped

if TYPE_CHECKING:
    import ray.data

_COUNTED = ["chosen", "rejected", "score_chosen", "score_rejected", "chosen_model", "rejected_model"]


@dataclasses.dataclass
class Counts:
    """What the report is made of."""

    answers: AnswerCounts
    pairs: PairCounts

    def add(self, other: Counts) -> None:
        self.answers.add(other.answers)
        self.pairs.add(other.pairs)


def stage(section: Preferences, seed: int, judgments: Stage | None, completions: int | None = None) -> Stage:
    """The stage `preferences`.

    Args:
        section: What is read, and how pairs come of it. Held-out pairs are no part of it.
        seed: The run's.
        judgments: What is read where `section.train` is `judgments`; None: the recipe makes none.
        completions: Of each prompt there; None: it is not known.
    """
    inputs = {"judgments": judgments} if judgments and section.train == sources.OF_THE_RUN else {}
    outside = sources.OutsideRows("preferences", section.train)

    def make(context: StageContext) -> Manifest:
        judged = context.input("judgments") if inputs else None
        found = {} if inputs else {"train": outside.at_commits}
        read = section.model_copy(update=found)
        report = make_preferences(read, seed, context.artifact, judged, progress=context.progress)
        return drop_report.examined(report, section.max_dropped, context.artifact)

    def check() -> None:
        sources.check_named("preferences.train", section.train)
        if section.train == sources.OF_THE_RUN and not inputs:
            raise _no_judgments()
        if inputs and completions == 1:
            raise UserError(
                "preferences.train=judgments: sampling asks for one completion of a prompt, and a pair takes two; set "
                "sampling.samples=2 or more, or add a model to sampling.pool"
            )

    train, split = sources.semantic_source(section.train)
    return Stage(
        "preferences",
        "rows",
        settings(section, {"train": train, "split": split}) | {"seed": seed},
        make,
        inputs=inputs,
        outside=lambda: outside.fingerprints() | fingerprints(section.decontaminate, "preferences.decontaminate"),
        commits=outside.commits,
        local_files=sources.local_files("preferences.train", section.train),
        check=check,
    )


def settings(section: Preferences, source: dict[str, Any]) -> dict[str, Any]:
    """The semantic values that a stage of pairs is made from: the section's, and of its two sources the stage's own."""
    return {"preferences": semantic(section).without("train", "held_out").replaced(**source)}


def make_preferences(
    section: Preferences,
    seed: int,
    artifact: Artifact,
    judgments: Artifact | None = None,
    *,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the preference pairs that the section names, and their report.

    Args:
        section: What is read, and how pairs come of it.
        seed: Of the pairs that are drawn.
        artifact: What is written.
        judgments: What is read where `section.train` is `judgments`.
        progress: Told of rows as they are done.

    Raises:
        UserError: The data, or a file of benchmark prompts, is missing or cannot be read.
    """
    agreement = agreement_numbers((judgments.manifest() or {}).get("agreement", {})) if judgments else None
    raw = read_raw(section, seed, judgments)
    return write_pairs(raw, section, seed, artifact, agreement=agreement, progress=progress)


def write_pairs(
    raw: ray.data.Dataset,
    section: Preferences,
    seed: int,
    artifact: Artifact,
    *,
    trained_on: Sequence[Artifact] = (),
    agreement: Mapping[str, Any] | None = None,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the pairs of raw rows (`sources.RAW_ROW`), each once, and their report.

    Args:
        trained_on: Preferences; a pair with a prompt of theirs is left out.

    Raises:
        UserError: A file of benchmark prompts is missing or cannot be read.
    """
    benchmarks = read_benchmarks(section.decontaminate, section.decontaminate_words, "preferences.decontaminate")
    make_rows = functools.partial(to_pairs, rule=rule_of(section, seed), benchmarks=benchmarks)
    report = writer.write(raw, artifact, PREFERENCES, measure=_measure, make=make_rows, progress=progress)
    counts = report.tally or Counts(AnswerCounts(), PairCounts())
    written = report.rows_out
    report = drop_repeated(artifact, report, "pair_id")
    for each in trained_on:
        report = drop_in_training(artifact, report, each)
    if report.rows_out < written:
        counts = Counts(counts.answers, _count_again(artifact, report))
    report.noted = _noted(counts.answers, report, section) | contaminated_by(artifact, report)
    files = preferences_report.write_report(artifact, section, report, counts.answers, counts.pairs, agreement)
    return dataclasses.replace(report, files=report.files | dict.fromkeys(files, 0))


def rule_of(section: Preferences, seed: int) -> Rule:
    """The part of the recipe that says how pairs come of scored answers."""
    return Rule(seed, section.rejected, section.score, section.margin, section.disagreement, section.cut_answers)


def to_pairs(raw: pa.Table, *, rule: Rule, benchmarks: Benchmarks | None = None) -> tuple[pa.Table, Counts]:
    """Raw rows (`sources.RAW_ROW`) -> pairs and dropped rows, a source row's pairs one after the other, and the counts.

    The source of a row that became several pairs is followed by the pair's number: file:line/1.
    """
    index = benchmarks.index() if benchmarks else None
    counts = AnswerCounts(rows=raw.num_rows)
    rows: list[dict[str, Any]] = []
    for source, value in raw_rows(raw):
        try:
            pairs = layouts.preferences(decode(value), rule, counts=counts, check_prompt=index.check if index else None)
        except Dropped as dropped:
            rows.append(dropped_row(source, dropped))
            continue
        if index is not None:
            pairs = [_with_checked_answers(pair, index) for pair in pairs]
        if len(pairs) == 1:
            rows.append(_row(source, pairs[0]))
        else:
            rows += [_row(f"{source}/{part}", pair) for part, pair in enumerate(pairs, 1)]
    table = pa.Table.from_pylist(rows, schema=mixed_schema(PREFERENCES))
    return table, Counts(counts, count_pairs(table.filter(table["reason"].is_null()).select(_COUNTED)))


def _with_checked_answers(pair: dict[str, Any] | Dropped, index: BenchmarkIndex) -> dict[str, Any] | Dropped:
    if isinstance(pair, Dropped):
        return pair
    try:
        index.check([*pair["chosen"], *pair["rejected"]])
    except Dropped as dropped:
        return dropped
    return pair


def _row(source: str, pair: dict[str, Any] | Dropped) -> dict[str, Any]:
    return dropped_row(source, pair) if isinstance(pair, Dropped) else {"source": source, **pair}


def read_raw(section: Preferences, seed: int, judgments: Artifact | None) -> ray.data.Dataset:
    """The raw rows (`sources.RAW_ROW`) that `section.train` names."""
    assert section.train is not None
    if section.train != sources.OF_THE_RUN:
        return sources.read_rows(section.train, seed=seed)
    if judgments is None:
        raise _no_judgments()
    # Through the same reader as files, so that the same rows come of an artifact and of a copy of its files.
    return sources.read_rows(judgments.uris())


def _no_judgments() -> UserError:
    return UserError(
        "preferences.train=judgments: this run has no judgments; give the recipe a sampling and a judging section"
    )


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("prompt", "chosen", "rejected"))


def _count_again(artifact: Artifact, report: Report) -> PairCounts:
    """The pairs that are left after others were left out."""
    paths = [posixpath.join(artifact.path, name) for name in kept_files(report.files)]
    counts = PairCounts()
    calls = [(group, artifact.run.filesystem) for group in file_tasks.groups(paths)]
    for counted in file_tasks.results(_count_files, calls):
        counts.add(counted)
    return counts


def _count_files(paths: Sequence[str], filesystem: pafs.FileSystem) -> PairCounts:
    counts = PairCounts()
    for path in paths:
        with open_parquet(path, filesystem) as file:
            for rows in file.iter_batches(columns=_COUNTED):
                counts.add(count_pairs(pa.Table.from_batches([rows])))
    return counts


def _noted(answers: AnswerCounts, report: Report, section: Preferences) -> dict[str, int | float]:
    """What was measured beside lengths; nothing where no row had several scored answers."""
    if not answers.scored_rows:
        return {}
    disagreeing = "disagreeing_answers" + ("" if section.disagreement is None else "_left_out")
    noted: dict[str, int | float] = {disagreeing: answers.disagreeing}
    if section.rejected == "every_pair":
        return noted | {"pairs_per_row": round(report.rows_out / report.rows_in, 2)}
    return noted | {"drawn_among_best": answers.drawn_among_best}
