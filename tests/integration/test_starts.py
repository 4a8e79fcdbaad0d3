"""Commands load what they need and no more: README on `--help`, dry runs, runs with nothing to do, forked workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.jobs import REPO, command

SHOW = """
import atexit, os, runpy, sys
screen = os.fdopen(os.dup(2), "w")  # a job's standard error goes to its log
slow = {"ray", "torch", "trl", "transformers"}
atexit.register(lambda: print("loaded:", *(slow & sys.modules.keys()), file=screen, flush=True))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def loaded(arguments: list[str]) -> tuple[str, set[str]]:
    """What a command prints, and which of the slow libraries it has loaded by its end."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *arguments[1:]], cwd=REPO, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("loaded:")]
    return done.stdout, set(line.split()[1:])


@pytest.mark.parametrize("job", ["dpo", "pipeline", "sft", "candidates", "judgments", "preferences"])
def test_help_loads_none_of_them(job: str) -> None:
    said, libraries = loaded([sys.executable, f"jobs/{job}.py", "--help"])
    assert "--recipe" in said
    assert libraries == set()


def test_a_dry_run_loads_none_of_them(undisturbed: Path, overrides: tuple[str, ...]) -> None:
    said, libraries = loaded([*command("dpo", undisturbed, *overrides), "--dry-run"])
    assert "reference_logps" in said
    assert libraries == set()


def test_where_all_is_done_none_of_them_is_loaded(undisturbed: Path, overrides: tuple[str, ...]) -> None:
    said, libraries = loaded(command("dpo", undisturbed, *overrides))
    assert said.count("already done") == 4
    assert libraries == set()


def test_all_workers_of_a_training_are_forked(undisturbed: Path) -> None:
    """One that is not says so in the log."""
    assert "without a fork" not in "".join(path.read_text() for path in (undisturbed / "logs").glob("*.log"))
