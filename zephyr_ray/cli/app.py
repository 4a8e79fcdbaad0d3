"""The command `zephyr-ray` and what it is made of."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zephyr_ray import __version__
from zephyr_ray.cli import cluster, keys, lineage, recipes, report, run, serve, submit
from zephyr_ray.cli.exit_status import exit_with
from zephyr_ray.cli.help_text import as_written

HELP = """Makes aligned chat models without human labels, the Zephyr way (arXiv 2310.16944), on Ray.

    zephyr-ray run tiny                     # dSFT, AI feedback, dDPO and a check, from a random model, on CPUs
    zephyr-ray serve --run runs/tiny --open # chat with the result
    zephyr-ray recipes                      # the recipes that ship

`zephyr-ray --install-completion` completes commands, options and recipes in your shell.
"""


def command() -> typer.Typer:
    app = typer.Typer(
        name="zephyr-ray",
        help=as_written(HELP),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_without_command)
    commands = (
        run.run,
        run.dry_run,
        report.report,
        serve.serve,
        lineage.lineage,
        keys.keys,
        recipes.recipes,
        cluster.up,
        cluster.down,
    )
    for function in commands:
        app.command(help=as_written(str(function.__doc__)))(function)
    app.command(
        help=as_written(str(submit.submit.__doc__)),
        context_settings={"allow_interspersed_args": False},  # from its first word on it is the job's command
    )(submit.submit)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"zephyr_ray {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")]


def _without_command(context: typer.Context, version: Version = False) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def main(*arguments: str) -> None:
    """Runs `zephyr-ray` and leaves the process with its exit status.

    Args:
        arguments: What stands before the process's own arguments.
    """
    exit_with(command(), [*arguments, *sys.argv[1:]], "zephyr-ray")
