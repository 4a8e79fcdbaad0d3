"""`zephyr-ray keys`: API keys of the chat endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

File = Annotated[str, typer.Argument(metavar="FILE", help="file of hashes; a new one is readable by you alone")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="whose key it is; appears in the access log")]


def keys(file: File, name: Name) -> int:
    """Makes an API key of the chat endpoint.

        zephyr-ray keys keys.txt alice

    It is printed once, and its hash is added to the file, which the endpoint reads when it starts. Remove a key by
    deleting its line.
    """
    from zephyr_ray.serving.keys import add

    print(add(file, name))
    return 0
