"""Who writes to a command's stdout and stderr: the command alone, whatever Ray, vLLM or a library prints."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def claim_stdout() -> TextIO:
    """This process's stdout, for the caller alone: what anything else in it or below it prints goes to stderr."""
    mine = _copy(1)
    os.dup2(2, 1)
    return mine


def to_log(path: str) -> tuple[TextIO, TextIO]:
    """Sends stdout and stderr to a file, together with everything that Ray forwards from its workers.

    Returns:
        What stdout and stderr were, for the caller alone.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mine = _copy(1), _copy(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return mine


def _copy(descriptor: int) -> TextIO:
    """A stream on what a descriptor is now. Processes that are started do not get it."""
    sys.stdout.flush()
    sys.stderr.flush()
    return os.fdopen(os.dup(descriptor), "w", buffering=1, encoding="utf-8", errors="replace")
