"""What benchmarks share that start children and watch their processes."""

from __future__ import annotations

import subprocess
from typing import Any

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
"""The environment of a child."""


def family(child: subprocess.Popen[bytes]) -> list[Any]:
    """A child and all processes that come from it, as psutil knows them; empty once it has ended."""
    import psutil

    try:
        top = psutil.Process(child.pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
