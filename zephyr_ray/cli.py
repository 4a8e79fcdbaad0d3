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

from zephyr_ray import __version__, recipe_file
from zephyr_ray.errors import UserError, raised_by_user

if TYPE_CHECKING:
    from zephyr_ray.artifacts import Run
    from zephyr_ray.recipe import Recipe
    from zephyr_ray.stages import Stage
    from zephyr_ray.status import Status
    from zephyr_ray.terminal import Terminal

Known = dict[str, tuple[str, dict[str, str]]]
"""Fingerprint of each stage and those of its inputs, by name."""

_TOLD_AT_THE_END = ("evaluation/preferences", "held_out")
"""Stages whose tables stand below everything else."""
_DEFAULT_RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tiny.yaml"


def job(
    doc: str, targets: Sequence[str], argv: Sequence[str] | None = None, *, order: Sequence[str] | None = None
) -> None:
    """Runs a job to its end and leaves the process with its exit status.

    Args:
        doc: The job's docstring, shown by --help.
        targets: The stages that the job brings up to date, with everything they read.
        argv: Arguments; the process's own by default.
        order: Every stage there is, each after what it reads: the job has `--from` and `--until` then.
    """
    options = _parse(doc, argv, order)
    try:
        status = _run(options, (options.until,) if options.until else tuple(targets), order)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:  # before there is a terminal, while libraries are loaded
        status = 130
    sys.exit(status)


def _parse(doc: str, argv: Sequence[str] | None, order: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(begin=None, until=None)
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="FILE",
        help="recipe YAML; several are merged left to right (default: recipes/tiny.yaml)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="override one field of the recipe"
    )
    if order is not None:
        parser.add_argument(
            "--from", dest="begin", choices=order, help="start here: what this stage reads must be done already"
        )
        parser.add_argument("--until", choices=order, help="stop after this stage")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and how each stage stands (done, stale and why, to do), and stop",
    )
    parser.add_argument("--version", action="version", version=f"zephyr_ray {__version__}")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace, targets: tuple[str, ...], order: Sequence[str] | None) -> int:
    recipe = recipe_file.load(options.recipe or [str(_DEFAULT_RECIPE)], options.set)

    from zephyr_ray import address, cluster

    cluster.set_environment()

    from zephyr_ray import stages
    from zephyr_ray.artifacts import Run
    from zephyr_ray.chat_template import template_text
    from zephyr_ray.training.trl_options import check_trl_options

    template_text(recipe.chat)
    if "held_out" in targets and (recipe.held_out is None or not stages.is_tiny(recipe)):
        targets = tuple(target for target in targets if target != "held_out")
    if recipe.preferences.held_out is None and not options.until:
        targets = tuple(target for target in targets if target != "evaluation/preferences")
    _check_sft(recipe, targets)
    wanted = stages.in_order(recipe, targets)
    check_trl_options(recipe, tuple(stage.name for stage in wanted))
    if order is not None:
        wanted.sort(key=lambda stage: order.index(stage.name))
    run = Run(recipe.run.root)
    run.check_readable()
    if options.dry_run:
        sys.stdout.write(recipe_file.to_yaml(recipe))
        sys.stdout.write("\n" + _table(recipe, run, wanted))
        return 0
    cluster.check_root(recipe.run.root)
    address.check_driver()
    known = stages.fingerprints(recipe, wanted)
    if options.begin:
        wanted = _from(options.begin, recipe, run, wanted, known)
    todo = [stage for stage in wanted if not run.artifact(stage.name).is_finished(known[stage.name][0])]
    run.check_writable()
    run.write_text("recipe.yaml", recipe_file.to_yaml(recipe))
    return _execute(recipe, run, wanted, todo, known)


def _from(begin: str, recipe: Recipe, run: Run, wanted: list[Stage], known: Known) -> list[Stage]:
    """The stages from this one on.

    Raises:
        UserError: It is none of them, or one before it is not done.
    """
    names = [stage.name for stage in wanted]
    if begin not in names:
        raise UserError(f"--from {begin}: this recipe has no such stage on its way; it has {', '.join(names)}")
    at = names.index(begin)
    for stage in wanted[:at]:
        status = _status(recipe, run, stage, known)
        if status.kind != "done":
            raise UserError(f"--from {begin}: {stage.name} is {status}; start there, or leave --from out")
    return wanted[at:]


def _check_sft(recipe: Recipe, targets: tuple[str, ...]) -> None:
    if recipe.sft is None and "sft" in targets:
        raise UserError("this recipe has no sft section; add one, or start at jobs/dpo.py with model.path")


def _execute(recipe: Recipe, run: Run, order: list[Stage], todo: list[Stage], known: Known) -> int:
    from zephyr_ray.terminal import Terminal

    terminal = Terminal(_log_path(run))
    started = time.monotonic()
    try:
        if todo:
            _make(recipe, run, order, todo, known, terminal)
        else:
            for stage in order:
                _say_done(stage, terminal)
    except (KeyboardInterrupt, SystemExit):  # Ray Train turns Ctrl-C into either
        terminal.say("interrupted; the same command goes on from here")
        return 130
    except Exception as error:
        return _tell_failure(error, terminal)
    _tell_result(run, order, terminal, time.monotonic() - started)
    return 0


def _make(recipe: Recipe, run: Run, order: list[Stage], todo: list[Stage], known: Known, terminal: Terminal) -> None:
    from zephyr_ray import cluster, preload, room, shared_files

    names = tuple(stage.name for stage in todo)
    with cluster.connected(preload.of_stages(recipe, names)):
        room.check_job(recipe, names)
        if cluster.is_joined():
            shared_files.check_nodes(recipe, run, names)
        terminal.plan([stage.name for stage in order])
        for stage in order:
            if stage in todo:
                fingerprint, inputs = known[stage.name]
                _bring_up_to_date(recipe, run, stage, fingerprint, inputs, terminal)
            else:
                _say_done(stage, terminal)


def _say_done(stage: Stage, terminal: Terminal) -> None:
    terminal.say(f"{stage.name:<22} already done")


def _tell_failure(error: Exception, terminal: Terminal) -> int:
    """What ended the command, and its exit status: 2 where the user can mend it, 1 with the traceback else."""
    refusal = error if isinstance(error, UserError) else raised_by_user(error)
    if refusal is not error:
        traceback.print_exc()
    failure = f"failed: {type(error).__name__}: {_first_line(error)}; the same command goes on from here"
    terminal.say(f"error: {refusal}" if refusal else failure, style="red")
    terminal.say(f"log: {terminal.log_path}")
    return 2 if refusal else 1


def _bring_up_to_date(
    recipe: Recipe, run: Run, stage: Stage, fingerprint: str, inputs: dict[str, str], terminal: Terminal
) -> None:
    from zephyr_ray import room
    from zephyr_ray.makers import Context
    from zephyr_ray.manifest import environment

    artifact = run.artifact(stage.name)
    room.make_room(recipe, stage.name, terminal.say)
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
    for line in made.get("lines", ()) if stage.name not in _TOLD_AT_THE_END else ():
        terminal.say(f"  {line}")


def _tell_result(run: Run, order: list[Stage], terminal: Terminal, seconds: float) -> None:
    terminal.say()
    for stage in order:
        folder = "checkpoint" if stage.name in ("base", "sft", "dpo") else ""
        terminal.say(f"{stage.name:<22} {run.root}/{stage.name}/{folder}".rstrip("/"))
    _tell_outcome(run, [stage.name for stage in order], terminal)
    terminal.say(f"finished in {round(seconds)} s; log: {terminal.log_path}")


def _tell_outcome(run: Run, names: list[str], terminal: Terminal) -> None:
    """The tables of the checks at the end, and how to talk to the model."""
    for name in _TOLD_AT_THE_END:
        if name in names:
            manifest = run.artifact(name).manifest()
            assert manifest is not None
            for line in manifest["lines"]:
                terminal.say(f"  {line}")
    if "dpo" in names or "sft" in names:
        terminal.say(f"chat with it: python serve/app.py --run {run.root} --open")


def _table(recipe: Recipe, run: Run, order: list[Stage]) -> str:
    """One line a stage: what it reads, and how it stands as far as that can be known from here."""
    from zephyr_ray import stages

    try:
        known: Known | None = stages.fingerprints(recipe, order)
        note = ""
    except UserError as error:  # data or a model that is not to be had from this machine
        known, note = None, f"how stages stand is not known here: {error}\n"
    lines = [f"in {run.root}:", f"{'stage':<22} {'reads':<42} status"]
    for stage in order:
        reads = ", ".join(stage.reads(recipe)) or "-"
        status = _status(recipe, run, stage, known) if known else "not known"
        lines.append(f"{stage.name:<22} {reads:<42} {status}")
    return "\n".join(lines) + "\n" + note


def _status(recipe: Recipe, run: Run, stage: Stage, known: Known) -> Status:
    from zephyr_ray.status import status_of

    return status_of(run.artifact(stage.name), known[stage.name][0], stage.config(recipe), known[stage.name][1])


def _log_path(run: Run) -> str:
    from zephyr_ray.storage import cache_root

    folder = os.path.join(run.path if run.is_local else cache_root(), "logs")
    return os.path.join(folder, f"{Path(sys.argv[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else ""
