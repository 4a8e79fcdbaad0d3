"""benchmarks/dialogues.py in small: contenders with the same functions keep the same rows, and flaws are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = 300


@pytest.mark.timeout(600)
def test_contenders_with_the_same_functions_keep_the_same_rows(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--rows", str(ROWS), "--repeats", "1", "--only", "ours_whole,data_juicer,datasets_rows"]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/dialogues.py"), *options, "--json", str(figures)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=550,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "data-juicer is left out" in ran.stdout
    told = json.loads(figures.read_text())
    assert told["rows"]["synthetic"] == ROWS
    [ours], [theirs] = told["runs"]["ours_whole"], told["runs"]["datasets_rows"]
    assert ours["rows_in"] == theirs["rows_in"] == ROWS
    steps = ours["steps"]
    assert steps["refusals"]["dropped"] > 0
    assert steps["casing"]["changed"] > 0
    by_steps = sum(step["dropped"] for step in steps.values())
    assert theirs["rows_out"] == ROWS - by_steps
    assert ours["rows_out"] < ROWS - by_steps  # repeats and near duplicates went, too
    assert {"learning names", "repeats", "near duplicates", "report", "the rest"} < {*ours["phases"]}
    assert all(run["cpu_seconds"] > 0 and run["mib"] > 50 for run in (ours, theirs))


def test_cpu_time_of_ended_processes_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from processes import CpuClock

    clock = CpuClock()
    assert clock.read([process(1, 0, 2.0), process(2, 1, 5.0), process(3, 2, 7.0)]) == 14.0
    assert clock.read([process(1, 0, 2.5, children=12.5)]) == 15.0  # both ended, and their parent knows it
    assert clock.read([process(1, 0, 3.0, children=12.5), process(4, 1, 4.0)]) == 19.5
    assert clock.read([process(1, 0, 3.0, children=12.5)]) == 19.5  # one ended, and nobody waited for it


def process(pid: int, parent: int, own: float, children: float = 0.0) -> object:
    """What psutil tells of one."""
    from types import SimpleNamespace

    times = SimpleNamespace(user=own, system=0.0, children_user=children, children_system=0.0)
    return SimpleNamespace(pid=pid, ppid=lambda: parent, cpu_times=lambda: times)
