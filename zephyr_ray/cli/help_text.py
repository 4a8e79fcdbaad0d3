"""Docstrings as the help of commands."""

from __future__ import annotations

import inspect


def as_written(text: str) -> str:
    """The text with its lines left as they are, which Typer would fill: a paragraph after a `\\b` is not filled."""
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in inspect.cleandoc(text).split("\n\n"))
