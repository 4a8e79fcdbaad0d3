"""What a run has to say of one row, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, str]


@dataclass(frozen=True)
class Kept:
    """A stage that has the row."""

    stage: str
    row_id: str
    file: str
    """Relative to the stage's folder."""
    number: int
    """Of the row in the file, from 1."""


@dataclass(frozen=True)
class Left:
    """A stage that dropped the row, or a repeat of it."""

    stage: str
    reason: str
    detail: str | None
    source: str | None


@dataclass(frozen=True)
class Opinion:
    """One judge's rating of one completion (`schemas.OPINION`)."""

    judge: str | None
    aspect: str | None
    rating: float | None
    is_reversed: bool
    """Whether it only checks for the position, and is in no mean."""


@dataclass(frozen=True)
class CompletionFacts:
    """An answer to the row's prompt."""

    number: int
    """From 1, in the order of the data."""
    model: str | None
    content: str
    seed: int | None = None
    finish_reason: str | None = None
    tokens: int | None = None
    principle: str | None = None
    overall_score: float | None = None
    ratings: Mapping[str, float] = field(default_factory=dict)
    """Means of the judges' ratings, by aspect."""
    opinions: tuple[Opinion, ...] = ()
    round: int = 1
    """Of the run, in which it was given."""


@dataclass(frozen=True)
class Answer:
    """One side of a pair."""

    completion: int | None
    """The number of the completion that it is; None where it was read as a pair."""
    model: str | None
    score: float | None
    content: str


@dataclass(frozen=True)
class PairFacts:
    """A preference pair of the row."""

    pair_id: str
    stage: str
    source: str | None
    chosen: Answer
    rejected: Answer
    why: str
    """In words, why these two."""


@dataclass(frozen=True)
class ModelUse:
    """A model that learned from the row."""

    stage: str
    row_id: str
    rows: str
    """The stage whose rows it read."""
    times: int | None = None
    """How often it was trained on the row; None where rows were joined, or that is not known."""
    is_finished: bool = True
    before: tuple[str, ...] = ()
    """Further models, which were trained from this one."""


@dataclass(frozen=True)
class RowLineage:
    """One row of a run."""

    asked: str
    row_ids: tuple[str, ...] = ()
    """The ids that it has in the stages of the run; of a prompt those of its pairs too."""
    prompt: tuple[Message, ...] = ()
    sources: tuple[str, ...] = ()
    """Where it came from outside of the run: file:number."""
    kept: tuple[Kept, ...] = ()
    dropped: tuple[Left, ...] = ()
    completions: tuple[CompletionFacts, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    """Requests that failed, by stage."""
    pairs: tuple[PairFacts, ...] = ()
    models: tuple[ModelUse, ...] = ()

    @property
    def held_out(self) -> tuple[str, ...]:
        """The stages of held-out rows that have it."""
        return tuple(
            dict.fromkeys(each.stage for each in self.kept if each.stage.rpartition("/")[2].startswith("held_out_"))
        )

    @property
    def data(self) -> dict[str, Any]:
        """All of it as JSON values."""
        from dataclasses import asdict

        return {**asdict(self), "held_out": list(self.held_out)}
