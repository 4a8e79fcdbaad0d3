"""Options that the commands on recipes have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from zephyr_ray.config import shipped


def complete(incomplete: str) -> list[str]:
    """Names of recipes, for a shell."""
    return [name for name in shipped.names() if name.startswith(incomplete)]


Recipes = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE",
        help="a recipe's YAML file, or the name of one that ships; several are merged left to right",
        autocompletion=complete,
    ),
]
RecipeFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="a recipe's YAML file, or the name of one that ships; several are merged left to right "
        "(without any, and without --set: recipes/tiny.yaml)",
        autocompletion=complete,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="override one field of the recipe"),
]
Begin = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help="start here: what this stage reads must be done already"),
]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="stop after this stage; a dry run lists them")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="print the resolved recipe and how each stage stands (done, stale and why, to do), and stop",
    ),
]
