"""Options that the commands on recipes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zephyr_ray.config import shipped

if TYPE_CHECKING:
    from zephyr_ray.pipeline.runner import Consent


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
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="write events to stdout, a JSON object a line (docs/watching.md), and nothing else; people read stderr",
    ),
]
Overwrite = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STAGE",
        help="make this stage anew though there is a finished or begun one: the old one is moved to "
        "STAGE.replaced-FINGERPRINT-EPOCH; may be given several times",
    ),
]
TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="take the run from a command that holds it and gives no sign of life any more"),
]
NoLease = Annotated[
    bool,
    typer.Option(
        "--no-lease",
        help="for a store without conditional writes: nothing keeps two commands from overwriting each other's work",
    ),
]


def consent(overwrite: list[str] | None, take_over: bool, no_lease: bool) -> Consent:
    """What these options allow."""
    from zephyr_ray.pipeline.runner import Consent

    return Consent(tuple(overwrite or ()), take_over, not no_lease)
