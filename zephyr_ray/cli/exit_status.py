"""Exit statuses: 0; 2 and one line where the user can mend it; 130 where interrupted; else 1 and a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.printable import printable


def exit_with(app: typer.Typer, arguments: Sequence[str], name: str) -> NoReturn:
    """Runs a command, which returns its status, and leaves the process with it."""
    try:
        status = app(args=arguments, prog_name=name, standalone_mode=False)
    except typer.TyperException as error:  # the command line is wrong
        status = _refuse(f"{error.format_message().replace('Value error, ', '').rstrip('.')}; see --help")
    except UserError as error:
        status = _refuse(str(error))
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _refuse(message: str) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    return 2
