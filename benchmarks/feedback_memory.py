"""Looks at a driver and its Ray workers while they run -> peaks of memory and CPU time, for benchmarks/feedback.py."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from processes import family

MIB = 1 << 20
OF_RAY = ("_StatsActor", "AutoscalingCoordinator", "DashboardAgent", "RuntimeEnvAgent", "DashboardHead", "LoggerHead")
"""Ray's own actors, which are there whatever runs."""
KINDS = {"driver": 8, "ledger": 8, "actor": 8, "tasks": 8, "sum": 8, "a task": 8}
"""Kinds of processes, and the widths of their columns."""


def watch(child: subprocess.Popen[bytes], every_s: float = 0.5) -> Iterator[dict[str, Any]]:
    """The driver and every Ray worker under it, until it ends: [pid, title, RSS, RSS less shared, CPU seconds]."""
    import psutil

    while child.poll() is None:
        seen = []
        for process in family(child):
            try:
                title = "driver" if process.pid == child.pid else " ".join(process.cmdline()).strip()
                if title != "driver" and (not title.startswith("ray::") or any(own in title for own in OF_RAY)):
                    continue
                memory, cpu = process.memory_info(), process.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            seen.append([process.pid, title, memory.rss, memory.rss - memory.shared, cpu.user + cpu.system])
        yield {"time": time.time(), "processes": seen}
        time.sleep(every_s)


def summary(samples: list[dict[str, Any]], told: dict[str, Any]) -> dict[str, Any]:
    """Peaks and CPU time of the processes that worked for one stage. Idle ones that Ray keeps ready do not count."""
    during = [each for each in samples if told["called"] <= each["time"] <= told["ended"]]
    busy = {pid for each in during for pid, title, *_ in each["processes"] if title == "driver" or "IDLE" not in title}
    ledgers = {pid for each in during for pid, title, *_ in each["processes"] if "Ledger" in title}
    actors = {pid for each in during for pid, title, *_ in each["processes"] if "Pool" in title}
    peaks = {key: dict.fromkeys(KINDS, 0.0) for key in ("rss_mib", "own_mib")}
    used: dict[int, list[float]] = {}
    for each in during:
        for place, key in ((2, "rss_mib"), (3, "own_mib")):
            now = dict.fromkeys(KINDS, 0.0)
            for process in each["processes"]:
                if process[0] in busy:
                    kind = "driver" if process[1] == "driver" else "ledger" if process[0] in ledgers else "tasks"
                    kind = "actor" if process[0] in actors else kind
                    now[kind] += process[place] / MIB
                    now["sum"] += process[place] / MIB
                    if kind == "tasks":
                        now["a task"] = max(now["a task"], process[place] / MIB)
            peaks[key] = {kind: max(peaks[key][kind], now[kind]) for kind in KINDS}
        for pid, _, _, _, cpu in each["processes"]:
            used.setdefault(pid, []).append(cpu)
    quarters = []
    for number in range(4):
        part = during[len(during) * number // 4 : len(during) * (number + 1) // 4]
        seen = [memory for each in part for pid, _, _, memory, _ in each["processes"] if pid in actors]
        quarters.append(statistics.fmean(seen) / MIB if seen else 0.0)
    seconds = told["ended"] - told["called"]
    cpu_s = sum(times[-1] - times[0] for pid, times in used.items() if pid in busy)
    return {
        **told,
        "seconds": seconds,
        "rows_per_s": told["rows"] / seconds,
        "cpu_ms_per_row": cpu_s * 1e3 / told["rows"],
        "processes": max(sum(process[0] in busy for process in each["processes"]) for each in during),
        "actor_own_mib_by_quarter": quarters,
        **peaks,
    }
