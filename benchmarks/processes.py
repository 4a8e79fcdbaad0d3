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


class CpuClock:
    """CPU time of a process tree, ended processes included: as they were last seen, or as their parents know them."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float, float]] = {}
        """Each process when last read: its parent, its own seconds, and those of its children that it waited for."""
        self._lost = 0.0

    def read(self, processes: list[Any]) -> float:
        """Seconds of all processes so far, now that these are alive."""
        import psutil

        now: dict[int, tuple[int, float, float]] = {}
        for process in processes:
            try:
                times, parent = process.cpu_times(), process.ppid()
            except psutil.Error:  # it has just ended
                continue
            own, waited_for = times.user + times.system, times.children_user + times.children_system
            now[process.pid] = (parent, own, waited_for)
        self._lost += self._ended_unknown_to_parents(now)
        self._seen = now
        return self._lost + sum(own + waited_for for _, own, waited_for in now.values())

    def _ended_unknown_to_parents(self, now: dict[int, tuple[int, float, float]]) -> float:
        ended: dict[int, float] = {}
        for pid, (parent, own, waited_for) in self._seen.items():
            if pid not in now:
                while parent in self._seen and parent not in now:
                    parent = self._seen[parent][0]
                ended[parent] = ended.get(parent, 0.0) + own + waited_for
        gained = {parent: now[parent][2] - self._seen[parent][2] for parent in ended if parent in now}
        return sum(max(0.0, seconds - gained.get(parent, 0.0)) for parent, seconds in ended.items())
