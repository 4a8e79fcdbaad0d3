"""Preferences that arrive slowly, so that a driver can be stopped between two of them."""

from __future__ import annotations

import time
from collections.abc import Iterator


def preferences(seed: int, count: int = 40, seconds: float = 0.1) -> Iterator[dict[str, str]]:
    for number in range(count):
        time.sleep(seconds)
        yield {"prompt": f"Question {number}", "chosen": f"good {seed}", "rejected": "bad"}
