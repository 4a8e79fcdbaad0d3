"""The lineage of a checkpoint that is served, from the file in its folder."""

from __future__ import annotations

import json
import os
from typing import Any

from zephyr_ray.pipeline.lineage.facts import FILE

_KEPT_BACK = "recipe"
"""What clients are not told: it names machines and paths beside what made the model."""


def lineage_in(folder: str, fingerprint: str) -> dict[str, Any] | None:
    """What lineage.json in a checkpoint's folder says, with the fingerprint that answers carry; None if there is none.

    Args:
        folder: On this machine; a hub id has none.
        fingerprint: Of the served model: `system_fingerprint` of its answers.
    """
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8") as stream:
            found = json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    return {"system_fingerprint": fingerprint} | {name: each for name, each in found.items() if name != _KEPT_BACK}
