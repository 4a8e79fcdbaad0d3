"""Runs stages of a recipe for a person or a program: what is to do, how it gets on, and what came of it."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from zephyr_ray.cli import standing
from zephyr_ray.errors import UserError, raised_by_user

if TYPE_CHECKING:
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.event_lines import EventLines
    from zephyr_ray.pipeline.events import Failed
    from zephyr_ray.pipeline.runner import Consent, Plan
    from zephyr_ray.pipeline.screen import Screen

_GOES_ON = "the same command goes on from here"


def run(
    load: Callable[[], Recipe],
    targets: Sequence[str] | Callable[[Recipe], Sequence[str]],
    name: str,
    *,
    also: Sequence[str] = (),
    begin: str | None = None,
    evaluate: bool = False,
    only_show: bool = False,
    consent: Consent | None = None,
    as_json: bool = False,
) -> int:
    """Brings stages of a recipe up to date, with everything they read.

    Args:
        load: Reads the recipe.
        targets: Names of the stages, or what tells them of a recipe. None: those that the pipeline ends with.
        name: Of the command, for its log file.
        also: Further stages, as far as the recipe has them.
        begin: The stage to start at: what it reads must be done already.
        evaluate: Add the recipe's evaluations.
        only_show: Print the resolved recipe and how the stages stand, and do nothing.
        consent: What may be replaced. None: nothing.
        as_json: Write events to stdout, a JSON object a line, and nothing else; people read stderr.

    Returns:
        The exit status.

    Raises:
        UserError: What a person can mend before any work.
    """
    with _events(as_json) as events:
        from zephyr_ray.cluster import connect
        from zephyr_ray.pipeline.runner import Consent

        connect.set_environment()

        from zephyr_ray import zephyr

        recipe = load()
        if events is not None:
            events.run = recipe.run.root
        named = targets(recipe) if callable(targets) else targets or zephyr.final_stages(recipe)
        wanted = [*named, *zephyr.those_it_has(recipe, also)]
        if only_show:
            return standing.show(recipe, wanted, evaluate, events)
        plan = zephyr.plan(recipe, wanted, evaluate)
        if begin:
            plan = plan.starting_at(begin)
        plan.check(consent or Consent())
        plan.run.check_writable()
        return _bring_up_to_date(plan, name, consent, events)


@contextlib.contextmanager
def _events(wanted: bool) -> Iterator[EventLines | None]:
    """The events on stdout if they are wanted, which then is theirs alone; what ends the block early is one of them."""
    if not wanted:
        yield None
        return
    from zephyr_ray.pipeline.event_lines import EventLines
    from zephyr_ray.pipeline.streams import claim_stdout

    events = EventLines(claim_stdout())
    try:
        yield events
    except (Exception, KeyboardInterrupt) as error:
        events.show(_failure(error))
        raise


def _bring_up_to_date(plan: Plan, name: str, consent: Consent | None, events: EventLines | None) -> int:
    from zephyr_ray.pipeline import runner, screen
    from zephyr_ray.pipeline.events import Finished

    log_path = _log_path(plan.run, name)
    shown = screen.of_command(log_path, events)
    started = time.monotonic()
    try:
        runner.bring_up_to_date(plan, shown, consent)
        _tell_result(plan, shown)
        _write_report(plan, shown)
        shown.tell(Finished(seconds=round(time.monotonic() - started, 2), log=log_path))
        return 0
    except (KeyboardInterrupt, SystemExit, Exception) as error:  # Ray Train turns Ctrl-C into either of the first two
        failure = _failure(error, log_path)
        if failure.status == 1:
            traceback.print_exc()
        shown.tell(failure)
        return failure.status
    finally:
        shown.close()


def _failure(error: BaseException, log_path: str | None = None) -> Failed:
    """What ended the command: status 2 where the user can mend it, 130 where it was interrupted, else 1."""
    from zephyr_ray.pipeline.events import Failed

    if not isinstance(error, Exception):
        return Failed(message=f"interrupted; {_GOES_ON}", status=130, log=log_path)
    refusal = error if isinstance(error, UserError) else raised_by_user(error)
    if refusal is not None:
        return Failed(message=str(refusal), status=2, log=log_path)
    return Failed(message=f"{type(error).__name__}: {_first_line(error)}; {_GOES_ON}", status=1, log=log_path)


def _tell_result(plan: Plan, screen: Screen) -> None:
    """Where everything lies, the evaluations' tables, and how to talk to the model."""
    from zephyr_ray.pipeline.events import Said
    from zephyr_ray.pipeline.model_source import stage_source
    from zephyr_ray.training.methods import methods

    trained = methods()
    for stage in plan.stages:
        artifact = plan.run.artifact(stage.name)
        path = stage_source(artifact).path if stage.makes_model else artifact.uri
        screen.tell(Said(stage=stage.name, text=f"{stage.name:<22} {path}"))
    for stage in plan.stages:
        for line in plan.run.artifact(stage.name).manifest_lines() if stage.is_evaluation else ():
            screen.tell(Said(stage=stage.name, text=f"  {line}"))
    if any(stage.kind in trained for stage in plan.stages):
        screen.say(f"chat with it: zephyr-ray serve --run {plan.run.root} --open")


def _write_report(plan: Plan, screen: Screen) -> None:
    """The run is complete without its report, so that whatever prevents one is told and changes no exit status."""
    from zephyr_ray import zephyr

    try:
        screen.say(f"report: {zephyr.write_report([plan.run.root])}")
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        screen.say(f"no report: {_first_line(error)}; try again: zephyr-ray report {plan.run.root}")


def _log_path(run: Run, name: str) -> str:
    from zephyr_ray.storage import cache_root

    folder = os.path.join(run.path if run.is_local else cache_root(), "logs")
    return os.path.join(folder, f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else ""
