"""Rows from outside of a run, as recipes name them. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from zephyr_ray.config.section import Function, Section
from zephyr_ray.config.unions import LIST, MAPPING, TEXT


class Files(Section):
    """Files of rows, wherever they are."""

    type: Literal["files"]
    """Files, folders or URIs."""
    paths: tuple[str, ...] = Field(min_length=1)
    """Their paths; all files of a folder are read (docs/data.md)."""


class HubDataset(Section):
    """A dataset of the Hugging Face hub."""

    type: Literal["dataset"]
    """A dataset of the hub."""
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """The dataset's id, `owner/name`."""
    split: str = Field(min_length=1)
    """The split that is read."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit. None: the main branch."""


class RowFunction(Function):
    """A Python function that yields rows: `function(seed=run.seed, **options)`."""

    type: Literal["function"]
    """A function."""


def _form(value: Any) -> str:
    return TEXT if isinstance(value, str) else LIST if isinstance(value, list | tuple) else MAPPING


Source = Annotated[
    Annotated[str, Tag(TEXT)]
    | Annotated[tuple[str, ...], Tag(LIST)]
    | Annotated[Annotated[Files | HubDataset | RowFunction, Field(discriminator="type")], Tag(MAPPING)],
    Discriminator(_form),
]
"""Where rows come from. Text is the path of a file or folder, a URI, or a dataset's id (`owner/name`,
`owner/name@revision`); a list names several of them."""
