"""The embedded world's parts as a recipe names them, for `--set`."""

from __future__ import annotations

import json
from typing import Any


def rows(name: str, count: int, **options: Any) -> str:
    """So many rows of a source: dialogues, prompts, preferences or held_out_preferences."""
    return _function(f"zephyr_ray.embedded.sources:{name}", {"type": "function"}, count=count, **options)


def base(**sizes: Any) -> str:
    """A raw model of these sizes."""
    return _function("zephyr_ray.embedded.model:base", {}, **sizes)


def held_out(**options: Any) -> str:
    """The evaluation on held-out prompts."""
    function = "zephyr_ray.embedded.evaluation:evaluate"
    models = ["base", "sft", "dpo"]
    return json.dumps([{"name": "held_out", "function": function, "models": models, "options": options}])


def _function(name: str, fields: dict[str, str], **options: Any) -> str:
    return json.dumps({**fields, "function": name, "options": options})
