"""Reads a row of `candidates` and a function of the user's -> a row of `judgments` with overall scores only."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from zephyr_ray.artifacts import fingerprint_files
from zephyr_ray.errors import UserError
from zephyr_ray.judging.opinions import scored_row

Judge = Callable[[list[dict[str, str]], str], float | None]
"""(messages of the prompt, answer) -> overall score, or None where it cannot tell. Any scale: only the order counts."""


def load_judge(function: str) -> Judge:
    """The function that a recipe names as `module:function`.

    Raises:
        UserError: There is no such module, no such name in it, or it cannot be called.
    """
    module_name, colon, name = function.partition(":")
    where = f"judging.function={function}"
    if not (module_name and colon and name) or module_name.startswith("."):
        raise UserError(f"{where}: write it as module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"{where}: {error}; the module must be importable on every node") from None
    judge = getattr(module, name, None)
    if not callable(judge):
        raise UserError(f"{where}: {module_name} has no function {name}")
    return judge


def program_fingerprint(function: str) -> str:
    """A hash of the source of the function's module, so that another program is another judge.

    Raises:
        UserError: There is no such function.
    """
    try:
        source = inspect.getsourcefile(inspect.unwrap(load_judge(function)))
    except TypeError:  # a builtin, or an object that can be called
        source = None
    if source is None:
        raise UserError(f"judging.function={function} is not written in Python")
    return fingerprint_files([source])


def judge_by_program(row: Mapping[str, Any], judge: Judge, name: str = "judging.function") -> dict[str, Any]:
    """A row of `judgments`. What the function raises goes through: it is a program's error, and no verdict.

    Raises:
        UserError: The function returned something else than a finite number or None.
    """
    return scored_row(
        row,
        [
            _checked(judge([dict(message) for message in row["messages"]], each["content"]), name)
            for each in row["completions"]
        ],
    )


def _checked(score: Any, name: str) -> float | None:
    if score is None:
        return None
    try:
        number = math.nan if isinstance(score, str | bytes) else float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{name} returned {repr(score)[:80]}; return a finite number, or None for no score")
    return number
