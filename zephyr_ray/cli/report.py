"""`zephyr-ray report` and `jobs/report.py`: the report of a run, or of several side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from zephyr_ray.cli.exit_status import exit_with
from zephyr_ray.cli.jobs import app_of

Roots = Annotated[list[str], typer.Argument(metavar="ROOT...", help="roots of runs: what run.root named")]
Out = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="where to write; by default ROOT, of several `comparison` in the first one"),
]


def report(roots: Roots, out: Out = None) -> int:
    """Writes a run's report.html, from what it has made so far.

        zephyr-ray report runs/tiny
        zephyr-ray report runs/first runs/second --out together

    Several runs are shown side by side: what of their recipes differs, and what came of it. Every pipeline writes its
    own report when it ends (docs/report.md).
    """
    from zephyr_ray.zephyr import write_report

    print(write_report(roots, out))
    return 0


def main(doc: str) -> NoReturn:
    """Runs the job and leaves the process with its exit status.

    Args:
        doc: The script's docstring, shown by --help.
    """
    exit_with(app_of(report, doc), sys.argv[1:], Path(sys.argv[0]).name)
