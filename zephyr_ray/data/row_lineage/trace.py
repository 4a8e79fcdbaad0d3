"""Follows one row through a run: from its source to the models that learned from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zephyr_ray.data.binarize import Rule
from zephyr_ray.data.row_lineage import lookup
from zephyr_ray.data.row_lineage.facts import Answer, CompletionFacts, Kept, Left, Opinion, PairFacts, RowLineage
from zephyr_ray.data.row_lineage.models import models_of
from zephyr_ray.data.row_lineage.why import why_these
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.lineage.chain import of_lineage
from zephyr_ray.pipeline.lineage.facts import StageFacts, is_replaced
from zephyr_ray.pipeline.rounds import in_folder

_HEX = re.compile(r"[0-9a-f]{4,32}")
_OF_A_FILE = re.compile(r"/data/(?P<file>[^/]+\.parquet):(?P<number>\d+)(/\d+)?$")
"""The source of a row that was read from an artifact of the run."""


@dataclass(frozen=True)
class Rows:
    """A stage of the run that holds rows with ids."""

    facts: StageFacts
    artifact: Artifact
    files: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def stage(self) -> str:
        return self.facts.stage

    @cached_property
    def kind(self) -> str:
        return self.stage.rpartition("/")[2]

    @cached_property
    def round(self) -> int:
        return in_folder(self.stage)[0]

    def spots(self, matches: lookup.Matches) -> list[lookup.Spot]:
        """The rows one of whose ids is meant, each once."""
        columns = [name for name in lookup.ID_COLUMNS if name in self.columns]
        found = [spot for name in columns for spot in lookup.find(self.artifact, self.files, name, matches)]
        return list({(spot.file, spot.row): spot for spot in reversed(found)}.values())[::-1]

    def row(self, spot: lookup.Spot) -> dict[str, Any]:
        return lookup.row_at(self.artifact, spot.file, spot.row)


def trace(run: Run, stages: Mapping[str, StageFacts], asked: str) -> RowLineage:
    """What a run has to say of a row.

    Args:
        run: The run.
        stages: Its stages by name (`lineage.reading.stages_of`).
        asked: An id (`pair_id`, `prompt_id`, `dialogue_id`) or its first digits, at least four; or a source.

    Raises:
        UserError: There is no such row, or there are several.
    """
    holders = rows_of(run, stages)
    found = _meant(holders, asked)
    is_id = found is not None
    if found is None:
        found = _by_source(holders, asked)
    related = Related(holders, found)
    rows, sources = related.all, related.values("source")
    row_ids = list(dict.fromkeys([*related.values(*lookup.ID_COLUMNS), *(spot.value for _, spot in found if is_id)]))
    everywhere = {name: each.spots(lookup.is_one_of(row_ids)) for name, each in holders.items()} if row_ids else {}
    kept = tuple(Kept(name, spot.value, spot.file, spot.row) for name, spots in everywhere.items() for spot in spots)
    outside = tuple(dict.fromkeys(each for each in sources if read_from(holders, each) is None))
    known = [*row_ids, *sources, *([] if is_id else [asked])]
    dropped = _dropped(run, stages, holders, row_ids, known, [(each.stage, spot) for each, spot, _ in rows])
    if not kept and not dropped:
        raise UserError(
            f"--row {asked}: no row of {run.root} has this id or source; a row that was dropped when it was read has "
            "no id: give its source (file:line), as dropped/ has it"
        )
    prompt = next((_prompt_of(row) for *_, row in rows if _prompt_of(row)), ())
    answers = _answers(rows)
    return RowLineage(
        asked,
        tuple(row_ids),
        prompt,
        outside,
        kept,
        dropped,
        tuple(each for found in answers.values() for each in found.completions),
        {each.stage: row["error"] for each, _, row in rows if row.get("error")},
        tuple(_pair(each, row, answers.get(each.round)) for each, _, row in rows if "chosen" in row),
        models_of(stages, holders, everywhere),
    )


def rows_of(run: Run, stages: Mapping[str, StageFacts]) -> dict[str, Rows]:
    """The stages with rows that have ids, in the order in which they were made; those that were replaced left out."""
    found = {}
    for facts in of_lineage(stages, run.root, stages).stages:
        name = facts.stage
        if is_replaced(name) or facts.fingerprint is None:
            continue
        artifact = run.artifact(name)
        files = lookup.data_files(artifact)
        columns = lookup.columns_of(artifact, files)
        if {*columns} & {*lookup.ID_COLUMNS}:
            found[name] = Rows(facts, artifact, tuple(files), tuple(columns))
    return found


Found = list[tuple[Rows, lookup.Spot]]


def _meant(holders: Mapping[str, Rows], asked: str) -> Found | None:
    """The rows whose id begins so; None if it is no id.

    Raises:
        UserError: Several ids begin so.
    """
    if not _HEX.fullmatch(asked.lower()):
        return None
    found = [(each, spot) for each in holders.values() for spot in each.spots(lookup.begins_with(asked.lower()))]
    different = sorted({spot.value for _, spot in found})
    if len(different) > 1:
        shown = ", ".join(different[:5]) + (f" and {len(different) - 5:,} more" if len(different) > 5 else "")
        raise UserError(f"--row {asked} is the beginning of {len(different):,} ids: {shown}; give more digits")
    return found or None


def _by_source(holders: Mapping[str, Rows], source: str) -> Found:
    """The rows that came from this place; and the row that lies there, if it is one of the run."""
    pattern = lookup.fits(f"^{re.escape(source)}(/[0-9]+)?$")
    having = [each for each in holders.values() if "source" in each.columns]
    found = [(each, spot) for each in having for spot in lookup.find(each.artifact, each.files, "source", pattern)]
    there = read_from(holders, source)
    return [there, *found] if there else found


class Related:
    """The rows that belong to some rows: of a pair those of its prompt, of a prompt those of its pairs."""

    def __init__(self, holders: Mapping[str, Rows], found: Found):
        self.holders = holders
        self.rows: dict[tuple[str, str, int], tuple[Rows, lookup.Spot, dict[str, Any]]] = {}
        self._add(found)
        for each, _, row in self.all:
            self._add(self._parents(each, row))
        ids = [row["prompt_id"] for *_, row in self.all if "prompt_id" in row]
        ids += [content_id(row["prompt"]) for *_, row in self.all if "pair_id" in row]
        telling = [each for each in holders.values() if each.kind in _TELLING and ids]
        self._add((each, spot) for each in telling for spot in each.spots(lookup.is_one_of(ids)))
        for each, spot, row in self.all:
            self._add(self._pairs(each, spot) if "replies" in row else ())

    @property
    def all(self) -> list[tuple[Rows, lookup.Spot, dict[str, Any]]]:
        return list(self.rows.values())

    def values(self, *columns: str) -> list[str]:
        """What the rows have in some columns, each once."""
        return list(dict.fromkeys(row[name] for *_, row in self.all for name in columns if row.get(name)))

    def _add(self, found: Iterable[tuple[Rows, lookup.Spot]]) -> None:
        for each, spot in found:
            key = (each.stage, spot.file, spot.row)
            if each.kind in _TELLING and key not in self.rows:
                self.rows[key] = (each, spot, each.row(spot))

    def _parents(self, each: Rows, row: Mapping[str, Any]) -> Found:
        """The row of the run that a pair was made of."""
        made_from = {one.stage for one in each.facts.inputs}
        found = read_from(self.holders, row.get("source") or "")
        return [found] if found and found[0].stage in made_from else []

    def _pairs(self, judged: Rows, spot: lookup.Spot) -> Found:
        """The pairs that were made of a judged row."""
        of_it = lookup.fits(f"/{re.escape(judged.stage)}/{re.escape(spot.file)}:{spot.row}(/[0-9]+)?$")
        readers = [each for each in self.holders.values() if any(o.stage == judged.stage for o in each.facts.inputs)]
        return [
            (each, pair)
            for each in readers
            if "source" in each.columns
            for pair in lookup.find(each.artifact, each.files, "source", of_it)
        ]


_TELLING = {
    "prompts",
    "seeds",
    "candidates",
    "judgments",
    "preferences",
    "held_out_pairs",
    "dialogues",
    "generated_dialogues",
    "held_out_dialogues",
    "dialogue_candidates",
    "dialogue_judgments",
}
"""The stages whose rows say more than that they are there."""


def _dropped(
    run: Run,
    stages: Mapping[str, StageFacts],
    holders: Mapping[str, Rows],
    row_ids: Sequence[str],
    known: Sequence[str],
    places: Sequence[tuple[str, lookup.Spot]],
) -> tuple[Left, ...]:
    """Where the row was dropped, or a repeat of it.

    Args:
        run: The run.
        stages: Its stages.
        holders: Those of them that hold rows with ids.
        row_ids: Of the row; a repeat has it as its detail.
        known: Sources of the row, or ids, which stand there for rows that have no source.
        places: Stages and rows in them, which are the sources of rows that were read from there.
    """
    meant = [("source", lookup.is_one_of(known)), ("detail", lookup.is_one_of(row_ids))]
    if places:
        ends = "|".join(re.escape(f"/{stage}/{spot.file}:{spot.row}") for stage, spot in places)
        meant.append(("source", lookup.fits(f"({ends})(/[0-9]+)?$")))
    spots = {(stage, spot.file, spot.row) for stage, spot in places}
    found = []
    for name, facts in stages.items():
        if is_replaced(name) or (facts.finished and not (facts.counts and facts.counts.dropped)):
            continue
        for row in lookup.dropped_rows(run.artifact(name), meant):
            there = None if row["detail"] in row_ids or row["source"] in known else read_from(holders, row["source"])
            if there is None or (there[0].stage, there[1].file, there[1].row) in spots:  # not of another round
                found.append(Left(name, row["reason"], row["detail"], row["source"]))
    return tuple(found)


def read_from(holders: Mapping[str, Rows], source: str) -> tuple[Rows, lookup.Spot] | None:
    """The row of the run that is a row's source; None if it came from outside. The run may have moved since."""
    place = _OF_A_FILE.search(source)
    if place is None:
        return None
    file = f"data/{place['file']}"
    named = [each for each in holders.values() if source[: place.start()].endswith(f"/{each.stage}")]
    there = max(named, key=lambda each: len(each.stage), default=None)  # round_2/judgments rather than judgments
    return (there, lookup.Spot(file, int(place["number"]), "")) if there and file in there.files else None


def _prompt_of(row: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    return tuple(row.get("prompt") or row.get("messages") or ())


@dataclass(frozen=True)
class _Answers:
    """The answers to the row's prompt in one round."""

    completions: tuple[CompletionFacts, ...]
    judged: Sequence[dict[str, Any]]
    """As they were judged; empty where they were not."""


def _answers(rows: Sequence[tuple[Rows, lookup.Spot, Mapping[str, Any]]]) -> dict[int, _Answers]:
    """The answers by round, numbered through all rounds: those that were judged, where some were."""
    found: dict[int, _Answers] = {}
    count = 0
    for number in sorted({each.round for each, *_ in rows}):
        answered = [row for each, _, row in rows if each.round == number and "completions" in row]
        judged = next((row for row in answered if "replies" in row), None)
        row = judged or next(iter(answered), {})
        given = row.get("completions") or ()
        completions = tuple(_completion(place, number, each) for place, each in enumerate(given, count + 1))
        found[number] = _Answers(completions, given if judged else ())
        count += len(completions)
    return found


def _completion(number: int, round_number: int, row: Mapping[str, Any]) -> CompletionFacts:
    ratings = {name: (each or {}).get("rating") for name, each in (row.get("annotations") or {}).items()}
    return CompletionFacts(
        number,
        row.get("model"),
        row["content"],
        row.get("seed"),
        row.get("finish_reason"),
        row.get("tokens"),
        row.get("principle"),
        row.get("overall_score"),
        {name: rating for name, rating in ratings.items() if rating is not None},
        tuple(
            Opinion(each["judge"], each["aspect"], each["rating"], bool(each["is_reversed"]))
            for each in row.get("opinions") or ()
        ),
        round_number,
    )


def _pair(each: Rows, row: Mapping[str, Any], answers: _Answers | None) -> PairFacts:
    sides = [_answer(row, which, answers) for which in ("chosen", "rejected")]
    why = (
        why_these(answers.judged, sides[0].content, sides[1].content, _rule(each.facts.config))
        if answers and answers.judged
        else f"it was read as a pair from {row['source']}"
    )
    return PairFacts(row["pair_id"], each.stage, row["source"], sides[0], sides[1], why)


def _answer(row: Mapping[str, Any], which: str, answers: _Answers | None) -> Answer:
    text, model = row[which][-1]["content"], row[f"{which}_model"]
    given = answers.completions if answers and answers.judged else ()
    same = [each.number for each in given if (each.content, each.model) == (text, model)]
    return Answer(same[0] if same else None, model, row[f"score_{which}"], text)


def _rule(config: Any) -> Rule:
    section = config.get("preferences") or {}
    given = {
        name: section[name]
        for name in ("rejected", "score", "margin", "disagreement", "cut_answers")
        if name in section
    }
    return Rule(seed=config.get("seed", 0), **given)
