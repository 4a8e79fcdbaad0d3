"""The modules of the user's own that a plug-in imports, found by their import statements.

What counts is what lies beside the plug-in: below the folder from which its top package is imported, or below the
working directory; for an installed plug-in, its own package; for one of ours, its own folder. The standard library,
installed packages and the rest of zephyr_ray do not count.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from zephyr_ray.pipeline.imports import imported_names

_INSTALLED = ("site-packages", "dist-packages")


def files(module: str, source: str) -> dict[str, str]:
    """The source files of a plug-in, by module: its own, and those of the modules that it imports, and so on.

    Args:
        module: The plug-in's module.
        source: Its file.
    """
    folders, found = _folders(module, source), {module: source}
    waiting = [module]
    while waiting:
        importer = waiting.pop()
        for name in _imports(importer, found[importer]):
            path = _find(name, folders) if name not in found and _counts(name, module, folders) else None
            if path is not None:
                found[name] = path
                waiting.append(name)
    return found


def _folders(module: str, source: str) -> list[str]:
    """The folders that top modules are looked for in."""
    depth = module.count(".") + (os.path.basename(source) == "__init__.py")
    top = os.path.dirname(os.path.abspath(source))
    for _ in range(depth):
        top = os.path.dirname(top)
    return list(dict.fromkeys([top, os.getcwd()]))


def _counts(name: str, plugin: str, folders: list[str]) -> bool:
    if plugin.startswith("zephyr_ray."):
        return f"{name}.".startswith(plugin.rpartition(".")[0] + ".")
    package = name.partition(".")[0]
    is_installed = os.path.basename(folders[0]) in _INSTALLED
    return package != "zephyr_ray" and (not is_installed or package == plugin.partition(".")[0])


def _imports(module: str, path: str) -> Iterator[str]:
    """What a module imports, and the packages that Python runs before it."""
    with open(path, "rb") as stream:
        try:
            tree = ast.parse(stream.read())
        except SyntaxError:  # which Python will report if it is ever imported
            return
    is_package = os.path.basename(path) == "__init__.py"
    for name in [*imported_names(tree, module, is_package=is_package), module]:
        parts = name.split(".")
        yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _find(name: str, folders: list[str]) -> str | None:
    """The file of a module: None for a folder without `__init__`, for a name within a module, and outside."""
    relative = os.path.join(*name.split("."))
    for folder in folders:
        for path in (os.path.join(folder, relative, "__init__.py"), os.path.join(folder, relative + ".py")):
            if os.path.isfile(path):
                return path
    return None
