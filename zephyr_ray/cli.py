"""The command line of every job: --recipe, --set, --dry-run; one line and status 2 for what a user can mend."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zephyr_ray import __version__, recipe_file
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from zephyr_ray.artifacts import Run
    from zephyr_ray.recipe import Recipe
    from zephyr_ray.stages import Stage
    from zephyr_ray.terminal import Terminal

_DEFAULT_RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tiny.yaml"


def job(doc: str, targets: Sequence[str], argv: Sequence[str] | None = None) -> None:
    """Runs a job to its end and leaves the process with its exit status.

    Args:
        doc: The job's docstring, shown by --help.
        targets: The stages that the job brings up to date, with everything they read.
        argv: Arguments; the process's own by default.
    """
    options = _parse(doc, argv)
    try:
        status = _run(options, tuple(targets))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _parse(doc: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="FILE",
        help="recipe YAML; several are merged left to right (default: recipes/tiny.yaml)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="override one field of the recipe"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and what would run, and stop")
    parser.add_argument("--version", action="version", version=f"zephyr_ray {__version__}")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace, targets: tuple[str, ...]) -> int:
    recipe = recipe_file.load(options.recipe or [str(_DEFAULT_RECIPE)], options.set)

    from zephyr_ray import cluster

    cluster.set_environment()

    from zephyr_ray import stages
    from zephyr_ray.artifacts import Run
    from zephyr_ray.chat_template import template_text

    template_text(recipe.chat)
    if "held_out" in targets and (recipe.held_out is None or not stages.is_tiny(recipe)):
        targets = tuple(target for target in targets if target != "held_out")
    _check_sft(recipe, targets)
    order = stages.in_order(recipe, targets)
    run = Run(recipe.run.root)
    if options.dry_run:
        sys.stdout.write(recipe_file.to_yaml(recipe))
        sys.stdout.write("\n" + _table(recipe, run, order))
        return 0
    _check_trl_options(recipe, tuple(stage.name for stage in order))
    known = stages.fingerprints(recipe, order)
    run.check_writable()
    run.write_text("recipe.yaml", recipe_file.to_yaml(recipe))
    return _execute(recipe, run, order, known)


def _check_sft(recipe: Recipe, targets: tuple[str, ...]) -> None:
    if recipe.sft is None and "sft" in targets:
        raise UserError("this recipe has no sft section; add one, or start at jobs/dpo.py with model.path")


def _check_trl_options(recipe: Recipe, names: tuple[str, ...]) -> None:
    if recipe.dpo.training.trl or (recipe.sft and recipe.sft.training.trl):
        from zephyr_ray.training.arguments import check_trl_options  # imports TRL: seconds

        check_trl_options(recipe, names)


def _execute(recipe: Recipe, run: Run, order: list[Stage], known: dict[str, Any]) -> int:
    from zephyr_ray import cluster
    from zephyr_ray.terminal import Terminal

    terminal = Terminal(_log_path(run))
    started = time.monotonic()
    try:
        cluster.connect()
        todo = tuple(stage.name for stage in order if not run.artifact(stage.name).is_finished(known[stage.name][0]))
        cluster.check_resources(recipe, todo)
        for stage in order:
            fingerprint, inputs = known[stage.name]
            _bring_up_to_date(recipe, run, stage, fingerprint, inputs, terminal)
    except UserError as error:
        terminal.say(f"error: {error}", style="red")
        terminal.say(f"log: {terminal.log_path}")
        return 2
    except (KeyboardInterrupt, SystemExit):  # Ray Train turns Ctrl-C into either
        terminal.say("interrupted; the same command goes on from here")
        return 130
    except Exception as error:
        traceback.print_exc()
        terminal.say(
            f"failed: {type(error).__name__}: {_first_line(error)}; the same command goes on from here", style="red"
        )
        terminal.say(f"log: {terminal.log_path}")
        return 1
    _tell_result(run, order, terminal, time.monotonic() - started)
    return 0


def _bring_up_to_date(
    recipe: Recipe, run: Run, stage: Stage, fingerprint: str, inputs: dict[str, str], terminal: Terminal
) -> None:
    from zephyr_ray.manifest import environment
    from zephyr_ray.stages import Context

    artifact = run.artifact(stage.name)
    if artifact.is_finished(fingerprint):
        terminal.say(f"{stage.name:<22} already done")
        return
    if artifact.begin(fingerprint):
        terminal.say(f"{stage.name:<22} resuming")
    started = time.time()
    with terminal.stage(stage.name, stage.unit) as progress:
        made = stage.make(Context(recipe, run, artifact, progress))
    artifact.finish(
        {
            "stage": stage.name,
            "fingerprint": fingerprint,
            "inputs": inputs,
            "config": stage.config(recipe),
            **made,
            "environment": environment(),
            "seconds": round(time.time() - started, 2),
        }
    )
    for line in made.get("lines", ()):
        terminal.say(f"  {line}")


def _tell_result(run: Run, order: list[Stage], terminal: Terminal, seconds: float) -> None:
    terminal.say()
    for stage in order:
        folder = "checkpoint" if stage.name in ("base", "sft", "dpo") else ""
        terminal.say(f"{stage.name:<22} {run.root}/{stage.name}/{folder}".rstrip("/"))
    terminal.say(f"finished in {round(seconds)} s; log: {terminal.log_path}")


def _table(recipe: Recipe, run: Run, order: list[Stage]) -> str:
    """One line a stage: what it reads and where it writes."""
    lines = [f"{'stage':<22} {'reads':<42} writes"]
    for stage in order:
        lines.append(f"{stage.name:<22} {', '.join(stage.reads(recipe)) or '-':<42} {run.root}/{stage.name}")
    return "\n".join(lines) + "\n"


def _log_path(run: Run) -> str:
    from zephyr_ray.artifacts import cache_root

    folder = os.path.join(run.path if run.is_local else cache_root(), "logs")
    return os.path.join(folder, f"{Path(sys.argv[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else ""
