"""Dialogues that are chosen among those that cleaning left, as `dialogues.select` says (docs/selection.md).

Beside the chosen ones as many are drawn at random: the control arm, which no way of choosing is good for that does not
beat it. The report shows both.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.config.feedback import Judging, LanguageModelJudges
from zephyr_ray.config.section import semantic
from zephyr_ray.config.selection import Embeddings, Selection
from zephyr_ray.data import selection_report
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.id_sets import KeyTable
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.selection import arms
from zephyr_ray.data.selection.coverage import Coverage, coverage
from zephyr_ray.data.selection.facility_location import representative_rows
from zephyr_ray.data.selection.highest import (
    Score,
    answer_characters,
    any_rows,
    column_score,
    highest,
    mean_rating,
    overall_rating,
)
from zephyr_ray.data.selection.topic_shares import TopicShares, topic_shares
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import DIALOGUES, Reason

_ID = "dialogue_id"


@dataclass(frozen=True)
class Scored:
    """Where scores come from."""

    rows: Artifact
    id_column: str
    columns: Sequence[str]
    score: Score


@dataclass(frozen=True)
class Chosen:
    """Ids of dialogues, and what is told of them."""

    chosen: KeyTable
    random: KeyTable
    """The control arm."""
    scores: arms.ScoreCounts | None = None
    coverage: tuple[Coverage, Coverage] | None = None
    """Of both."""
    topics: Sequence[TopicShares] = ()


def stage(
    section: Selection,
    seed: int,
    dialogues: Stage,
    embeddings: Stage | None = None,
    judgments: Stage | None = None,
    judging: Judging | None = None,
) -> Stage:
    """The stage `selected_dialogues`.

    Args:
        section: How dialogues are chosen.
        seed: The run's.
        dialogues: What they are chosen from.
        embeddings: Their vectors, if they are chosen by diversity.
        judgments: Their ratings, if they are chosen by those.
        judging: What the ratings are made from.
    """
    more = {"embeddings": embeddings, "judgments": judgments}
    inputs = {name: each for name, each in more.items() if each is not None}
    rating = None if judging is None else rating_of(judging)

    def make(context: StageContext) -> Manifest:
        rows = context.input("dialogues")
        found = choose(section, seed, rows, {name: context.input(name) for name in inputs}, rating)
        report = make_selected_dialogues(section, rows, found.chosen, context.artifact, progress=context.progress)
        counted = arms.count_arms(rows, found.chosen, found.random)
        lines = selection_report.write_report(
            context.artifact, section, counted, found.scores, found.coverage, found.topics
        )
        report.files |= {selection_report.HTML: 0}
        made = drop_report.manifest(report)
        return made | {"lines": lines}

    return Stage(
        "selected_dialogues",
        "rows",
        {"select": semantic(section), "seed": seed},
        make,
        inputs={"dialogues": dialogues, **inputs},
    )


def rating_of(judging: Judging) -> Score:
    """What a judge's ratings are compared by: the overall one, or the mean of its aspects if it gives no other."""
    judge = judging.judge
    return mean_rating if isinstance(judge, LanguageModelJudges) and "overall" not in judge.aspects else overall_rating


def choose(
    section: Selection, seed: int, dialogues: Artifact, given: dict[str, Artifact], rating: Score | None
) -> Chosen:
    """The dialogues that are chosen, and the control arm.

    Args:
        section: How.
        seed: The run's.
        dialogues: What they are chosen from.
        given: `embeddings` and `judgments`, where they are needed.
        rating: What judgments are compared by.

    Raises:
        UserError: Not one dialogue has a score.
    """
    drawn = any_rows(dialogues, _ID, section.n, seed)
    if section.by == "random":
        return Chosen(drawn, drawn)
    if section.by == "diversity":
        embeddings = given["embeddings"]
        found = representative_rows(embeddings, section.n, seed)
        covered = coverage(embeddings, found, seed), coverage(embeddings, drawn, seed)
        return Chosen(found, drawn, coverage=covered, topics=topic_shares(dialogues, embeddings, found, drawn, seed))
    scored = _scored(section, dialogues, given, rating)
    found = highest(scored.rows, scored.id_column, scored.columns, scored.score, section.n, seed)
    counts = arms.count_scores(scored.rows, scored.id_column, scored.columns, scored.score, found, drawn)
    if not counts.everything:
        raise UserError("selected_dialogues: not one dialogue has a score; check the judge, or dialogues.select.column")
    return Chosen(found, drawn, None if section.by == "length" else counts)


def _scored(section: Selection, dialogues: Artifact, given: dict[str, Artifact], rating: Score | None) -> Scored:
    if section.by == "length":
        return Scored(dialogues, _ID, ["messages"], answer_characters)
    if section.column is not None:
        return Scored(dialogues, _ID, ["score"], column_score)
    assert rating is not None
    return Scored(given["judgments"], "prompt_id", ["completions"], rating)


def make_selected_dialogues(
    section: Selection, dialogues: Artifact, chosen: KeyTable, artifact: Artifact, *, progress: Any = None
) -> Report:
    """Writes the chosen dialogues; the others are dropped rows.

    Raises:
        RuntimeError: Not every row arrived.
    """
    split = functools.partial(to_rows, chosen=chosen, detail=f"not among the {section.n:,} by {section.by}")
    rows = sources.read_artifact(dialogues).map_batches(split, batch_format="pyarrow", batch_size=None)
    report = writer.write(
        rows, artifact, DIALOGUES, measure=lambda kept: lengths.characters(kept, ("messages",)), progress=progress
    )
    sources.check_all_read(dialogues, report.rows_in)
    return report


def to_rows(batch: pa.Table, *, chosen: KeyTable, detail: str) -> pa.Table:
    """`schemas.DIALOGUES` rows -> `rows.mixed_schema` of them: those that were not chosen have a reason."""
    is_chosen = pa.array(chosen.has(batch[_ID]))
    reason, details = (pc.if_else(is_chosen, None, text) for text in (str(Reason.NOT_SELECTED), detail))
    rows = batch.select(DIALOGUES.names)
    return rows.append_column("reason", reason).append_column("detail", details)


def embeddings_of(section: Selection, given: Embeddings | None) -> Embeddings | None:
    """What the dialogues are embedded by, if they have to be.

    Raises:
        UserError: They have to be, and the recipe says not by what.
    """
    if section.by != "diversity":
        return None
    if given is None:
        raise UserError(
            "dialogues.select by=diversity needs embeddings; name a sentence-embedding model: "
            "--set embeddings.model=FOLDER_OR_HUB_ID"
        )
    return given


def judging_of(section: Selection, given: Judging | None) -> Judging | None:
    """What rates the dialogues, if something has to.

    Raises:
        UserError: Something has to, and the recipe says not what.
    """
    if section.by != "quality" or section.column is not None:
        return None
    if given is None:
        raise UserError(
            "dialogues.select by=quality needs scores; name the column that holds them "
            "(dialogues.select.column), or give the recipe a judging section"
        )
    return given
