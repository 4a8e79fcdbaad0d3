"""The command line of the scripts in jobs/: --recipe, --set, --dry-run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from zephyr_ray.cli.exit_status import exit_with
from zephyr_ray.cli.help_text import as_written
from zephyr_ray.cli.recipe_options import (
    Begin,
    DryRun,
    NoLease,
    Overrides,
    Overwrite,
    RecipeFiles,
    TakeOver,
    Until,
    consent,
)
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.pipeline.runner import Consent


def job(doc: str, *stages: str, evaluate: bool = False) -> None:
    """Runs a job to its end and leaves the process with its exit status.

    Args:
        doc: The script's docstring, shown by --help.
        stages: The stages that the job brings up to date, with everything they read: the first, and of the others
            those that the recipe has.
        evaluate: Whether it makes the recipe's evaluations too.
    """

    def command(
        recipe: RecipeFiles = None,
        set_: Overrides = None,
        dry_run: DryRun = False,
        overwrite: Overwrite = None,
        take_over: TakeOver = False,
        no_lease: NoLease = False,
    ) -> int:
        allowed = consent(overwrite, take_over, no_lease)
        return _run(recipe, set_ or [], stages[:1], allowed, also=stages[1:], evaluate=evaluate, dry_run=dry_run)

    _exit_with(doc, command)


def pipeline_job(doc: str) -> None:
    """The same for the whole pipeline or, with --from and --until, a part of it."""
    _exit_with(doc, pipeline)


def pipeline(
    recipe: RecipeFiles = None,
    set_: Overrides = None,
    begin: Begin = None,
    until: Until = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = None,
    take_over: TakeOver = False,
    no_lease: NoLease = False,
) -> int:
    allowed = consent(overwrite, take_over, no_lease)
    return _run(recipe, set_ or [], [until] if until else [], allowed, begin=begin, evaluate=not until, dry_run=dry_run)


def app_of(command: Callable[..., int], doc: str) -> typer.Typer:
    """A job's command line: one command, with a docstring for its help."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command(help=as_written(doc))(command)
    return app


def _exit_with(doc: str, command: Callable[..., int]) -> NoReturn:
    exit_with(app_of(command, doc), sys.argv[1:], Path(sys.argv[0]).name)


def _run(
    files: Sequence[str] | None,
    overrides: Sequence[str],
    stages: Sequence[str],
    allowed: Consent,
    *,
    also: Sequence[str] = (),
    begin: str | None = None,
    evaluate: bool,
    dry_run: bool,
) -> int:
    from zephyr_ray.cli import pipeline as pipelines

    recipe = load(files, overrides)
    name = Path(sys.argv[0]).stem
    return pipelines.run(
        recipe, stages, name, also=also, begin=begin, evaluate=evaluate, only_show=dry_run, consent=allowed
    )


def load(files: Sequence[str] | None, overrides: Sequence[str]) -> Recipe:
    """The recipe that a job runs; without one, that of the embedded world.

    Raises:
        UserError: It cannot be read.
    """
    from zephyr_ray.training.methods import load_recipe

    return load_recipe(files, overrides) if files else _embedded_world(overrides)


def _embedded_world(overrides: Sequence[str]) -> Recipe:
    """What a job without a recipe runs.

    Raises:
        UserError: It has --set: of what, it does not say.
    """
    from zephyr_ray.cluster.connect import is_submitted
    from zephyr_ray.config import loader, shipped

    if overrides:
        raise UserError("--set without --recipe: name the recipe that it changes, as in --recipe recipes/tiny.yaml")
    # A submitted job runs in a copy of the repository that goes when it has ended.
    lasting = [f"run.root={Path.home() / 'zephyr_ray' / 'tiny'}"] if is_submitted() else []
    recipe = loader.load([str(shipped.path_of("tiny"))], lasting)
    print(f"no --recipe: this is the embedded world, recipes/tiny.yaml, in {recipe.run.root}", flush=True)
    return recipe
