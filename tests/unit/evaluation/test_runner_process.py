"""Scripts in another environment: what is missing there, and how one that fails is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import lm_eval_process, runner_process
from zephyr_ray.evaluation.runner_process import check_packages, events

RUNNER = """
import json, os, sys
job = json.load(open(sys.argv[1]))
print(json.dumps({"key": os.environ["KEY"]}), flush=True)
print("broken pipe ahead", file=sys.stderr)
sys.exit(job["status"])
"""


@pytest.fixture
def runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(RUNNER)
    monkeypatch.setattr(runner_process, "_RUNNERS", tmp_path)
    return tmp_path


def test_events_come_as_they_are_told(runners: Path) -> None:
    told = events(sys.executable, "own.py", {"status": 0}, environment={"KEY": "secret"}, log=runners / "log")
    assert list(told) == [{"key": "secret"}]
    assert (runners / "log").read_text() == "broken pipe ahead\n"


def test_a_script_that_fails_is_told_with_its_last_line(runners: Path) -> None:
    told = events(sys.executable, "own.py", {"status": 3}, environment={"KEY": ""}, log=runners / "log")
    assert next(told) == {"key": ""}
    with pytest.raises(UserError, match=r"own.py ended with status 3: broken pipe ahead \(all it said is in .*log\)"):
        next(told)


def test_a_missing_package_is_told_with_the_command_that_installs_it() -> None:
    check_packages(sys.executable, ("json",), "--other-python", "pip install json")
    with pytest.raises(UserError, match=r"has no nowhere: pip install it, or name another .* with --other-python"):
        check_packages(sys.executable, ("json", "nowhere"), "--other-python", "pip install it")
    with pytest.raises(UserError, match="--other-python false is no Python: it said nothing"):
        check_packages("false", ("json",), "--other-python", "pip install it")


def test_the_context_is_the_endpoints_or_else_the_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048}')
    assert lm_eval_process.longest(str(tmp_path), {"max_model_len": 512}) == 512
    assert lm_eval_process.longest(str(tmp_path), {"max_model_len": None}) == 2048
    assert lm_eval_process.longest(None, {}) is None


@pytest.mark.parametrize("script", ["run_lm_eval.py", "run_alpaca_eval.py"])
def test_a_script_needs_nothing_of_ours(script: str) -> None:
    """It is started in an environment that may not have this package."""
    path = Path(runner_process.__file__).parent / "runners" / script
    code = f"import runpy, sys; sys.modules['zephyr_ray'] = None; runpy.run_path({str(path)!r})"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
