"""Preferences whose source prints while it reads, past Python's own streams too."""

from __future__ import annotations

import os
from collections.abc import Iterator


def preferences(seed: int, count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        print(f"chatter of row {number}", flush=True)
        os.write(1, b"chatter of C\n")
        os.write(2, b"\x1b[31mits errors\n")
        yield {"prompt": f"Question {number}", "chosen": f"good {seed}", "rejected": "bad"}
    yield {"prompt": "Which?", "chosen": "the same", "rejected": "the same"}
