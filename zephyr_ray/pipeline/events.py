"""What a command tells of a run as it gets on: what a terminal shows, and what `--json` writes, a line each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from zephyr_ray.pipeline.printable import printable

Printable = Annotated[str, BeforeValidator(printable)]
StageStatus = Literal["done", "stale", "unfinished", "to do", "not known"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str
    """What happened; it tells which further fields there are."""
    time: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """When, in UTC."""
    run: Printable | None = None
    """The run's root; null before the recipe is read."""
    stage: Printable | None = None
    """The stage that it is about; null where it is about the whole run."""


class PlannedStage(BaseModel):
    """A stage of a plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Printable
    """Its folder under the run's root."""
    unit: Printable
    """The unit of its progress, such as rows or steps."""
    reads: tuple[Printable, ...]
    """The stages that it reads."""
    status: StageStatus
    """How it stands before the command does anything; `not known` where an input cannot be seen from here."""
    changed: tuple[Printable, ...]
    """Why it is stale: fields of the recipe, `input NAME`."""


class Planned(_Event):
    """The stages that the command brings up to date, in order."""

    event: Literal["plan"] = "plan"
    stages: tuple[PlannedStage, ...]


class StageStarted(_Event):
    """A stage begins, or goes on where it stopped."""

    event: Literal["stage_started"] = "stage_started"
    unit: Printable
    """The unit of its progress."""


class StageProgress(_Event):
    """How far a stage is."""

    event: Literal["progress"] = "progress"
    rows: int
    """Units that are done, those of earlier tries too."""
    total: int | None
    """Units that there are; null where that is not known."""
    unit: Printable
    """What is counted."""
    rate: float | None
    """Units a second."""
    seconds_left: float | None
    metrics: dict[Printable, int | float]
    """Loss, replies, tokens ... by name; null for what is no number, such as a loss that is NaN."""

    def says_the_same_as(self, other: StageProgress | None) -> bool:
        """Whether nothing has moved since."""
        return other is not None and repr(self._counts()) == repr(other._counts())  # NaN is not equal to itself

    def _counts(self) -> tuple[str | None, int, int | None, dict[str, int | float]]:
        return self.stage, self.rows, self.total, self.metrics


class Said(_Event):
    """A line for a person."""

    event: Literal["log"] = "log"
    text: Printable


class Alarm(_Event):
    """A line about something that is wrong with what was made."""

    event: Literal["alarm"] = "alarm"
    text: Printable


class Cost(BaseModel):
    """What models were asked, in all tries of a stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    """Requests that got a reply."""
    prompt_tokens: int
    tokens: int
    """Tokens of the replies."""
    usd: float
    """US dollars, of endpoints with a price."""


class StageFinished(_Event):
    """A stage is finished, and its manifest written."""

    event: Literal["stage_finished"] = "stage_finished"
    counts: dict[Printable, int]
    """Rows `in`, `out`, and `added` where rows in became several; empty where the stage counts none."""
    dropped: dict[Printable, int]
    """Rows left out, by reason: in + added = out + dropped."""
    seconds: float
    cost: Cost | None
    """Null where no model was asked."""


class StageSkipped(_Event):
    """A stage was done already."""

    event: Literal["stage_skipped"] = "stage_skipped"


class Failed(_Event):
    """The command ends without having finished; the same command goes on from there."""

    event: Literal["error"] = "error"
    message: Printable
    status: int
    """The exit status: 2 where the user can mend it, 130 where interrupted, else 1."""
    log: Printable | None = None
    """The log file, on the command's machine."""


class Finished(_Event):
    """The command is through."""

    event: Literal["finished"] = "finished"
    seconds: float
    log: Printable | None = None
    """The log file, on the command's machine."""


Event = Planned | StageStarted | StageProgress | Said | Alarm | StageFinished | StageSkipped | Failed | Finished

_PARSER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse(line: str) -> Event:
    """The event of a line that `--json` wrote.

    Raises:
        pydantic.ValidationError: It is none.
    """
    return _PARSER.validate_json(line)
