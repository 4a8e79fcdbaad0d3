"""The modules that a Python source file names in import statements, anywhere in it, without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imported_names(tree: ast.Module, module: str, *, is_package: bool = False) -> Iterator[str]:
    """The full names of all modules that may be imported: of `from a import b` both `a` and `a.b`.

    Args:
        tree: The source of the module.
        module: Its name, which relative imports start from.
        is_package: Whether it is a package's `__init__`.
    """
    for node in _run(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            up = node.level - is_package
            start = parts[: len(parts) - up] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that are there for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from _run(child)
