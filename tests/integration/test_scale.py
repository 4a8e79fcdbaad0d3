"""What a stage does beside its own work, at ten times the rows: benchmarks/scale.py in small (docs/performance.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEW, MANY = "10000", "100000"


@pytest.mark.timeout(600)
def test_ten_times_the_rows_take_no_more_than_twelve_times_as_long_and_no_more_of_the_driver(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--rows", f"{FEW},{MANY}", "--phases", "count,dedup,fingerprint,resume", "--json", str(figures)]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/scale.py"), *options], capture_output=True, text=True, timeout=550
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    steps = {
        f"{phase} {step}": (measured["rows"][FEW], measured["rows"][MANY])
        for phase, found in json.loads(figures.read_text())["phases"].items()
        for step, measured in found.items()
    }
    assert len(steps) == 9
    assert {name: (few, many) for name, (few, many) in steps.items() if many["seconds"] > 12 * few["seconds"] + 1} == {}
    assert {name for name, (few, many) in steps.items() if many["driver_mib"] > few["driver_mib"] + 64} == set()
