"""`zephyr-ray recipes`: the recipes that ship."""

from __future__ import annotations

from typing import Annotated

import typer

from zephyr_ray.cli.recipe_options import complete
from zephyr_ray.config import shipped
from zephyr_ray.errors import UserError

Name = Annotated[str | None, typer.Argument(metavar="NAME", help="print this one", autocompletion=complete)]


def recipes(name: Name = None) -> int:
    """Lists the recipes that ship, or prints one.

        zephyr-ray recipes
        zephyr-ray recipes zephyr-7b-beta/paper > mine.yaml

    A recipe that is printed is a file of your own to change.
    """
    if name is None:
        width = max(map(len, shipped.names()))
        for each in shipped.names():
            print(f"{each:<{width}}  {shipped.purpose(each)}")
        return 0
    path = shipped.path_of(name)
    if path is None:
        raise UserError(f"no recipe {name} ships; there are {', '.join(shipped.names())}")
    print(path.read_text(encoding="utf-8"), end="")
    return 0
