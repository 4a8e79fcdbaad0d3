"""What stands in the place of Ray's script that sets up a worker: it does the same, or leaves it to that script."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._private import node, parameter
from ray._private.runtime_env.context import RuntimeEnvContext

from zephyr_ray.cluster import connect

SCRIPT = Path(connect.__file__).with_name("setup_worker.py")
TELL = "import json, os, sys; print(json.dumps([WHO, sys.argv[1:], os.environ.get('ZEPHYR_OF_A_TEST')]))"


@pytest.fixture
def ray_folder(tmp_path: Path) -> Path:
    """A folder with a worker, and beside it a script in the place of Ray's, which tell what they were started with."""
    (tmp_path / "default_worker.py").write_text(TELL.replace("WHO", "'worker'"))
    (tmp_path / "setup_worker.py").write_text(TELL.replace("WHO", "'setup of Ray'"))
    return tmp_path


def told(folder: Path, context: dict[str, Any], language: str = "PYTHON") -> list[Any]:
    serialized = RuntimeEnvContext(**context).serialize()
    arguments = [str(folder / "default_worker.py"), "--a=b c", f"--serialized-runtime-env-context={serialized}"]
    command = [sys.executable, str(SCRIPT), *arguments, f"--language={language}", "--last"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PYTHON = shlex.join([sys.executable, "-S", "-E"])


def test_a_worker_has_its_variables_and_its_arguments(ray_folder: Path) -> None:
    context = {"py_executable": PYTHON, "env_vars": {"ZEPHYR_OF_A_TEST": "a value"}}
    assert told(ray_folder, context) == ["worker", ["--a=b c", "--last"], "a value"]


@pytest.mark.parametrize(
    "context",
    [
        {"command_prefix": ["echo"]},
        {"env_vars": {"ZEPHYR_OF_A_TEST": "${HOME}/x"}},
        {"override_worker_entrypoint": "/elsewhere/default_worker.py"},
        {"java_jars": ["a.jar"]},
    ],
)
def test_what_it_does_not_do_is_left_to_rays(ray_folder: Path, context: dict[str, Any]) -> None:
    who, arguments, _ = told(ray_folder, {"py_executable": PYTHON} | context)
    assert who == "setup of Ray"
    assert json.loads(arguments[2].partition("=")[2]).items() >= context.items()
    assert (arguments[1], arguments[3:]) == ("--a=b c", ["--language=PYTHON", "--last"])


def test_another_language_is_left_to_rays(ray_folder: Path) -> None:
    assert told(ray_folder, {"py_executable": PYTHON}, language="CPP")[0] == "setup of Ray"


def test_ray_knows_its_script_by_this_name() -> None:
    """Where a worker needs no setting up, Ray's node finds the script in the command by its name, and leaves it out."""
    assert SCRIPT.name == node.ray_constants.SETUP_WORKER_FILENAME
    assert parameter.RayParams(setup_worker_path=str(SCRIPT)).setup_worker_path == str(SCRIPT)
