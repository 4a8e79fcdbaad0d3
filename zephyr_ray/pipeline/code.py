"""A fingerprint of the modules of ours that decide a stage's rows, and the packages that they use.

They are the module that makes the stage and all that it imports, directly or not, in the folders that decide rows. A
change of comments, docstrings or layout is none.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from zephyr_ray.pipeline.imports import imported_names

_PACKAGE = Path(__file__).resolve().parents[1]
_DECIDE_ROWS = ("answers", "chat_template", "data", "evaluation", "inference", "judging", "schemas", "training")
_TEMPLATES = "zephyr_ray.chat_template"
"""The module that renders the templates that are part of the package."""


def code_of(modules: Iterable[str]) -> dict[str, str]:
    """The hash of each module that decides the rows of a stage, by name.

    Args:
        modules: The module of its `make`, and others that it names at run time. Modules that are not ours, and those
            that are not there, are left out.
    """
    return {name: _hash(name) for name in _reachable(modules)}


def libraries_of(modules: Iterable[str]) -> set[str]:
    """The top modules that those modules import and that are neither ours nor Python's own. Arguments as `code_of`."""
    names = {name.partition(".")[0] for module in _reachable(modules) for name in _imports(module)}
    return names - set(sys.stdlib_module_names) - {"zephyr_ray"}


def _reachable(modules: Iterable[str]) -> list[str]:
    found: set[str] = set()
    waiting = [name for name in modules if _decides_rows(name)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for other in _imports(name) if _decides_rows(other)]
    return sorted(found)


def _decides_rows(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and parts[0] == "zephyr_ray" and parts[1] in _DECIDE_ROWS and _file(name) is not None


def _file(name: str) -> Path | None:
    path = _PACKAGE.joinpath(*name.split(".")[1:])
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@functools.cache
def _tree(name: str) -> ast.Module:
    path = _file(name)
    assert path is not None
    return ast.parse(path.read_bytes())


@functools.cache
def _imports(name: str) -> tuple[str, ...]:
    return tuple(imported_names(_tree(name), name))


@functools.cache
def _hash(name: str) -> str:
    digest = hashlib.blake2b(ast.dump(_without_docstrings(_tree(name))).encode(), digest_size=8)
    if name == _TEMPLATES:
        folder = resources.files("zephyr_ray").joinpath("templates")
        for file in sorted(folder.iterdir(), key=lambda each: each.name):
            if file.name.startswith("zephyr"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
