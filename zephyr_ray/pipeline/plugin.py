"""User functions that a recipe names as `module:function`: sources, models, judges, evaluations."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import fingerprint_files


def load(field: str, function: str) -> Callable[..., Any]:
    """The function that a field of a recipe names.

    Raises:
        UserError: There is no such module, it has no such name, or the object cannot be called.
    """
    module_name, colon, name = function.partition(":")
    where = f"{field}={function}"
    if not (module_name and colon and name) or module_name.startswith("."):
        raise UserError(f"{where}: write it as module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"{where}: {error}; the module must be importable on every node") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise UserError(f"{where}: {module_name} has no function {name}")
    return found


def fingerprint(field: str, function: str) -> str:
    """A hash of the source of the function's module, so that a changed program has another fingerprint.

    Raises:
        UserError: There is no such function, or its source is missing.
    """
    try:
        source = inspect.getsourcefile(inspect.unwrap(load(field, function)))
    except TypeError:  # a builtin or a callable object
        source = None
    if source is None:
        raise UserError(f"{field}={function} is not written in Python")
    return fingerprint_files([source])
