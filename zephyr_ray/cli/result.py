"""What the commands of jobs/evaluate.py end with: a table on the screen, and numbers in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from zephyr_ray.errors import UserError

Out = Annotated[str | None, typer.Option("--json", metavar="OUT", help="write the numbers here")]


def show(lines: Sequence[str], numbers: Mapping[str, Any], out: str | None) -> int:
    """Prints lines, and writes numbers if there is a place for them.

    Raises:
        UserError: They cannot be written there.
    """
    print("\n".join(lines).strip())
    if out:
        try:
            Path(out).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {out} cannot be written: {error.strerror}") from None
    return 0


def check_folder_of(option: str, file: str | None) -> None:
    """Checks, before anything is paid for, that a file's folder is there.

    Raises:
        UserError: It is not.
    """
    if file and not Path(file).parent.is_dir():
        raise UserError(f"{option} {file} cannot be written: there is no folder {Path(file).parent}")
