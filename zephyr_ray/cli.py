"""The command line of every job: --recipe, --set, --dry-run; one line and status 2 for what a user can mend."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zephyr_ray import __version__
from zephyr_ray.config import loader
from zephyr_ray.errors import UserError, raised_by_user
from zephyr_ray.training.methods import recipe_type

if TYPE_CHECKING:
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.runner import Plan
    from zephyr_ray.pipeline.screen import Screen
    from zephyr_ray.pipeline.stage import Stage

_DEFAULT_RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tiny.yaml"


def job(
    doc: str, *targets: str, argv: Sequence[str] | None = None, any_stage: bool = False, evaluate: bool = False
) -> None:
    """Runs a job to its end and leaves the process with its exit status.

    Args:
        doc: The job's docstring, shown by --help.
        targets: Names of the stages that the job brings up to date, with everything they read. None: those that the
            recipe's pipeline ends with.
        argv: Arguments; the process's own by default.
        any_stage: Whether it has --from and --until.
        evaluate: Whether it makes the recipe's evaluations too, where it is not told to stop before them.
    """
    options = _parser(doc, any_stage).parse_args(argv)
    try:
        status = _run(options, (options.until,) if options.until else targets, evaluate and not options.until)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:  # before there is a screen, while libraries are loaded
        status = 130
    sys.exit(status)


def _parser(doc: str, any_stage: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(begin=None, until=None)
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="FILE",
        help="recipe YAML; several are merged left to right (without any, and without --set: recipes/tiny.yaml)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="override one field of the recipe"
    )
    if any_stage:
        parser.add_argument(
            "--from", dest="begin", metavar="STAGE", help="start here: what this stage reads must be done already"
        )
        parser.add_argument("--until", metavar="STAGE", help="stop after this stage; --dry-run lists them")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and how each stage stands (done, stale and why, to do), and stop",
    )
    parser.add_argument("--version", action="version", version=f"zephyr_ray {__version__}")
    return parser


def _run(options: argparse.Namespace, targets: Sequence[str], evaluate: bool) -> int:
    recipe = loader.load(options.recipe, options.set, recipe_type()) if options.recipe else _embedded_world(options)

    from zephyr_ray.cluster import connect

    connect.set_environment()

    from zephyr_ray import zephyr

    targets = targets or zephyr.final_stages(recipe)
    if options.dry_run:
        sys.stdout.write(loader.to_yaml(recipe) + "\n" + _dry_run(recipe, targets, evaluate))
        return 0
    plan = zephyr.plan(recipe, targets, evaluate)
    if options.begin:
        plan = plan.starting_at(options.begin)
    zephyr.write_recipe(plan.run, recipe)
    return _bring_up_to_date(plan)


def _embedded_world(options: argparse.Namespace) -> Recipe:
    """What a command without a recipe runs.

    Raises:
        UserError: It has --set: of what, it does not say.
    """
    if options.set:
        raise UserError("--set without --recipe: name the recipe that it changes, as in --recipe recipes/tiny.yaml")
    from zephyr_ray.cluster.connect import is_submitted

    # A submitted job runs in a copy of the repository that goes when it has ended.
    lasting = [f"run.root={Path.home() / 'zephyr_ray' / 'tiny'}"] if is_submitted() else []
    recipe = loader.load([str(_DEFAULT_RECIPE)], lasting)
    print(f"no --recipe: this is the embedded world, recipes/tiny.yaml, in {recipe.run.root}", flush=True)
    return recipe


def _dry_run(recipe: Recipe, targets: Sequence[str], evaluate: bool) -> str:
    """One line a stage: what it reads, and how it stands as far as that can be known from here."""
    from zephyr_ray import zephyr
    from zephyr_ray.pipeline.runner import Plan
    from zephyr_ray.pipeline.stage import identities

    stages = zephyr.select(recipe, targets, evaluate)
    run = zephyr.open_run(recipe)
    try:
        plan: Plan | None = Plan(run, tuple(stages), identities(stages))
        note = ""
    except UserError as error:  # data or a model that is not to be had from this machine
        plan, note = None, f"how stages stand is not known here: {error}\n"
    rows = [(stage.name, _reads(stage), str(plan.status(stage)) if plan else "not known") for stage in stages]
    width = max(42, *(len(reads) for _, reads, _ in rows))
    lines = [f"in {run.root}:", f"{'stage':<22} {'reads':<{width}} status"]
    lines += [f"{name:<22} {reads:<{width}} {status}" for name, reads, status in rows]
    return "\n".join(lines) + "\n" + note


def _reads(stage: Stage) -> str:
    return ", ".join(each.name for each in stage.inputs.values()) or "-"


def _bring_up_to_date(plan: Plan) -> int:
    from zephyr_ray.pipeline import runner
    from zephyr_ray.pipeline.screen import on_terminal

    log_path = _log_path(plan.run)
    screen = on_terminal(log_path)
    started = time.monotonic()
    try:
        runner.bring_up_to_date(plan, screen)
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
    from zephyr_ray.training.methods import methods

    screen.say()
    for stage in plan.stages:
        folder = "checkpoint" if stage.makes_model else ""
        screen.say(f"{stage.name:<22} {plan.run.root}/{stage.name}/{folder}".rstrip("/"))
    for stage in plan.stages:
        for line in plan.run.artifact(stage.name).manifest_lines() if stage.is_evaluation else ():
            screen.say(f"  {line}")
    if any(stage.kind in methods() for stage in plan.stages):
        screen.say(f"chat with it: python serve/app.py --run {plan.run.root} --open")


def _log_path(run: Run) -> str:
    from zephyr_ray.storage import cache_root

    folder = os.path.join(run.path if run.is_local else cache_root(), "logs")
    return os.path.join(folder, f"{Path(sys.argv[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else ""
