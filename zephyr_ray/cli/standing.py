"""What `--dry-run` shows of a recipe: all of its fields, and how each of its stages stands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.event_lines import EventLines
    from zephyr_ray.pipeline.events import Alarm, Planned, Said
    from zephyr_ray.pipeline.stage import Stage


def show(recipe: Recipe, targets: Sequence[str], evaluate: bool, events: EventLines | None) -> int:
    """Prints the recipe and a line for each stage; where there are events, the plan and its notes are some.

    Returns:
        The exit status.
    """
    from zephyr_ray import zephyr
    from zephyr_ray.config import loader

    run = zephyr.open_run(recipe)
    plan, notes = _plan_and_notes(run, zephyr.select(recipe, targets, evaluate))
    if events is not None:
        for event in (plan, *notes):
            events.show(event)
        return 0
    said = [f"{note.stage}: {note.text.strip()}" if note.stage else note.text for note in notes]
    lines = [loader.to_yaml(recipe), f"in {run.root}:", *_table(plan), *said]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _plan_and_notes(run: Run, stages: Sequence[Stage]) -> tuple[Planned, list[Said | Alarm]]:
    """How the stages stand as far as that can be known from here, and what there is to know of them."""
    from zephyr_ray.pipeline.events import Planned, Said
    from zephyr_ray.pipeline.runner import Plan, planned
    from zephyr_ray.pipeline.stage import identities

    try:
        plan = Plan(run, tuple(stages), identities(stages, run))
    except UserError as error:  # data or a model that is not to be had from this machine
        unknown = Planned(stages=tuple(planned(stage, "not known") for stage in stages))
        return unknown, [Said(text=f"how stages stand is not known here: {error}")]
    replaced = [Said(text=f"would replace {each}; refused without --overwrite") for each in plan.replacements()]
    return plan.event(), [*(note for stage in stages for note in plan.noted(stage)), *replaced]


def _table(plan: Planned) -> list[str]:
    """One line a stage: what it reads, and how it stands."""
    rows = []
    for stage in plan.stages:
        why = f" ({', '.join(stage.changed)})" if stage.changed else ""
        rows.append((stage.name, ", ".join(stage.reads) or "-", f"{stage.status}{why}"))
    width = max(42, *(len(reads) for _, reads, _ in rows))
    column = max(22, *(len(name) for name, _, _ in rows))
    lines = [f"{'stage':<{column}} {'reads':<{width}} status"]
    return lines + [f"{name:<{column}} {reads:<{width}} {status}" for name, reads, status in rows]
