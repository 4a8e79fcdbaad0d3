"""User functions that a recipe names as `module:function`: sources, models, judges, evaluations."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import own_imports
from zephyr_ray.pipeline.fingerprints import content_id, fingerprint_files


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


def fingerprints(name: str, field: str, function: str) -> dict[str, str]:
    """Hashes of a program's source, so that a changed program has other fingerprints.

    Args:
        name: The name of the stage's input.
        field: The field of the recipe that names the function.
        function: `module:function`.

    Returns:
        The hash of the function's module by `name`, and of the modules of the user's own that it imports
        (`own_imports.files`) by `<name> imports`, if there are any.

    Raises:
        UserError: There is no such function, or its source is missing.
    """
    found = inspect.unwrap(load(field, function))
    try:
        source = inspect.getsourcefile(found)
    except TypeError:  # a builtin or a callable object
        source = None
    if source is None:
        raise UserError(f"{field}={function} is not written in Python")
    module = importlib.import_module(function.partition(":")[0])
    own = own_imports.files(module.__name__, module.__file__ or source)
    helpers = [[other, fingerprint_files([path])] for other, path in sorted(own.items()) if path != source]
    return {name: fingerprint_files([source])} | ({f"{name} imports": content_id(helpers)} if helpers else {})
