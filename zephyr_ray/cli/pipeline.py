"""Runs stages of a recipe for a person at a terminal: what is to do, how it gets on, and what came of it."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr_ray.config import loader
from zephyr_ray.errors import UserError, raised_by_user

if TYPE_CHECKING:
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.runner import Consent, Plan
    from zephyr_ray.pipeline.screen import Screen
    from zephyr_ray.pipeline.stage import Stage


def run(
    recipe: Recipe,
    targets: Sequence[str],
    name: str,
    *,
    also: Sequence[str] = (),
    begin: str | None = None,
    evaluate: bool = False,
    only_show: bool = False,
    consent: Consent | None = None,
) -> int:
    """Brings stages of a recipe up to date, with everything they read.

    Args:
        recipe: The experiment.
        targets: Names of the stages. None: those that the pipeline ends with.
        name: Of the command, for its log file.
        also: Further stages, as far as the recipe has them.
        begin: The stage to start at: what it reads must be done already.
        evaluate: Add the recipe's evaluations.
        only_show: Print the resolved recipe and how the stages stand, and do nothing.
        consent: What may be replaced. None: nothing.

    Returns:
        The exit status.

    Raises:
        UserError: What a person can mend before any work.
    """
    from zephyr_ray.cluster import connect
    from zephyr_ray.pipeline.runner import Consent

    connect.set_environment()

    from zephyr_ray import zephyr

    targets = [*(targets or zephyr.final_stages(recipe)), *zephyr.those_it_has(recipe, also)]
    if only_show:
        sys.stdout.write(loader.to_yaml(recipe) + "\n" + _standing(recipe, targets, evaluate))
        return 0
    plan = zephyr.plan(recipe, targets, evaluate)
    if begin:
        plan = plan.starting_at(begin)
    plan.check(consent or Consent())
    plan.run.check_writable()
    return _bring_up_to_date(plan, name, consent)


def _standing(recipe: Recipe, targets: Sequence[str], evaluate: bool) -> str:
    """One line a stage: what it reads, and how it stands as far as that can be known from here."""
    from zephyr_ray import zephyr
    from zephyr_ray.pipeline.runner import Plan
    from zephyr_ray.pipeline.stage import identities

    stages = zephyr.select(recipe, targets, evaluate)
    run = zephyr.open_run(recipe)
    try:
        plan: Plan | None = Plan(run, tuple(stages), identities(stages, run))
        note = ""
    except UserError as error:  # data or a model that is not to be had from this machine
        plan, note = None, f"how stages stand is not known here: {error}\n"
    rows = [(stage.name, _reads(stage), str(plan.status(stage)) if plan else "not known") for stage in stages]
    width, column = max(42, *(len(reads) for _, reads, _ in rows)), max(22, *(len(name) for name, _, _ in rows))
    lines = [f"in {run.root}:", f"{'stage':<{column}} {'reads':<{width}} status"]
    lines += [f"{name:<{column}} {reads:<{width}} {status}" for name, reads, status in rows]
    lines += [f"{stage.name}: {note}" for stage in stages for note in plan.notes(stage)] if plan else []
    lines += [f"would replace {each}; refused without --overwrite" for each in plan.replacements()] if plan else []
    return "\n".join(lines) + "\n" + note


def _reads(stage: Stage) -> str:
    return ", ".join(each.name for each in stage.reads.values()) or "-"


def _bring_up_to_date(plan: Plan, name: str, consent: Consent | None) -> int:
    from zephyr_ray.pipeline import runner
    from zephyr_ray.pipeline.screen import on_terminal

    log_path = _log_path(plan.run, name)
    screen = on_terminal(log_path)
    started = time.monotonic()
    try:
        runner.bring_up_to_date(plan, screen, consent)
    except (KeyboardInterrupt, SystemExit):  # Ray Train turns Ctrl-C into either
        screen.say("interrupted; the same command goes on from here")
        return 130
    except Exception as error:
        return _tell_failure(error, screen, log_path)
    _tell_result(plan, screen)
    screen.say(f"finished in {round(time.monotonic() - started)} s; log: {log_path}")
    return 0


def _tell_failure(error: Exception, screen: Screen, log_path: str) -> int:
    """What ended the command, and its exit status: 2 where the user can mend it, 1 with the traceback else."""
    refusal = error if isinstance(error, UserError) else raised_by_user(error)
    if refusal is not error:
        traceback.print_exc()
    failure = f"failed: {type(error).__name__}: {_first_line(error)}; the same command goes on from here"
    screen.say(f"error: {refusal}" if refusal else failure, style="red")
    screen.say(f"log: {log_path}")
    return 2 if refusal else 1


def _tell_result(plan: Plan, screen: Screen) -> None:
    """Where everything lies, the evaluations' tables, and how to talk to the model."""
    from zephyr_ray.pipeline.model_source import stage_source
    from zephyr_ray.training.methods import methods

    trained = methods()
    screen.say()
    for stage in plan.stages:
        artifact = plan.run.artifact(stage.name)
        screen.say(f"{stage.name:<22} {stage_source(artifact).path if stage.makes_model else artifact.uri}")
    for stage in plan.stages:
        for line in plan.run.artifact(stage.name).manifest_lines() if stage.is_evaluation else ():
            screen.say(f"  {line}")
    if any(stage.kind in trained for stage in plan.stages):
        screen.say(f"chat with it: zephyr-ray serve --run {plan.run.root} --open")


def _log_path(run: Run, name: str) -> str:
    from zephyr_ray.storage import cache_root

    folder = os.path.join(run.path if run.is_local else cache_root(), "logs")
    return os.path.join(folder, f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else ""
