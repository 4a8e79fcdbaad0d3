"""What became of the rows at every arrow of a run: rows in + added = rows out + dropped, stage after stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zephyr_ray.reporting.run_stages import MadeStage, sources_of

_FROM_OUTSIDE = frozenset({"held_out_pairs", "held_out_dialogues"})
"""Stages that read their rows from outside the run, and another stage only to leave out what it has too."""


@dataclass(frozen=True)
class Arrow:
    """What a stage made of the rows that it read."""

    stage: str
    rows_in: int
    added: int
    """Rows beyond the first that a row became: several pairs of a prompt."""
    rows_out: int
    dropped: list[tuple[str, int]]
    """By reason, the most frequent first."""

    @property
    def before(self) -> int:
        return self.rows_in + self.added

    @property
    def lost(self) -> int:
        return sum(count for _, count in self.dropped)

    @property
    def is_balanced(self) -> bool:
        return self.before == self.rows_out + self.lost

    @property
    def lost_share(self) -> float:
        return self.lost / self.before if self.before else 0.0


@dataclass(frozen=True)
class Chain:
    """Arrows of which each reads what the one before it wrote."""

    arrows: list[Arrow]
    trained: tuple[str, int] | None = None
    """The training at its end, and the rows that it was trained on."""

    @property
    def widest(self) -> int:
        return max([1, *(arrow.before for arrow in self.arrows)])


def arrow_of(stage: MadeStage) -> Arrow | None:
    """None where the manifest counts no rows, or no more than an evaluation's questions."""
    counts = stage.counts
    if not counts or "evaluation" in stage.manifest.get("config", {}) or stage.name.startswith("evaluation/"):
        return None
    dropped = sorted(((str(name), int(n)) for name, n in counts["dropped"].items()), key=lambda each: -each[1])
    return Arrow(stage.name, int(counts["in"]), int(counts.get("added", 0)), int(counts["out"]), dropped)


def chains(stages: Sequence[MadeStage]) -> list[Chain]:
    """The flows of rows of a round, each from what was read from outside to what was last made of it.

    A stage continues the flow of the stage whose rows it read: the one among its inputs that wrote as many as it counts
    in. Where two stages read the same rows, the second begins a flow of its own.
    """
    arrows = {stage.name: arrow for stage in stages if (arrow := arrow_of(stage))}
    flows: list[list[Arrow]] = []
    for stage in stages:
        arrow = arrows.get(stage.name)
        if arrow is not None:
            before = None if stage.name in _FROM_OUTSIDE else _read_by(arrow, stage, stages, arrows)
            flow = next((each for each in flows if before is not None and each[-1] is before), None)
            if flow is None:
                flows.append([arrow])
            else:
                flow.append(arrow)
    return [Chain(flow, _training_on(flow[-1], stages)) for flow in flows]


def _read_by(arrow: Arrow, stage: MadeStage, stages: Sequence[MadeStage], arrows: dict[str, Arrow]) -> Arrow | None:
    read = [arrows[each.name] for each in sources_of(stage, stages) if each.name in arrows]
    return next((each for each in reversed(read) if each.rows_out == arrow.rows_in), None)


def _training_on(last: Arrow, stages: Sequence[MadeStage]) -> tuple[str, int] | None:
    for stage in stages:
        trained = stage.manifest.get("trained")
        inputs = [each.name for each in sources_of(stage, stages) if each.name not in stage.manifest.get("watched", {})]
        if trained and last.stage in inputs:
            return stage.name, int(trained["rows"])
    return None
