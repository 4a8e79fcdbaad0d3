"""Workers that are forked: from what was loaded, with an environment, streams and random numbers of their own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from zephyr_ray.cluster import fork_server

REPO = Path(__file__).parents[3]
LOADED = "colorsys"  # which nothing else imports

TELL = f"""
import json, os, sys
told = {{"loaded": {LOADED!r} in sys.modules, "arguments": sys.argv[1:], "folder": os.getcwd()}}
told |= {{"pid": os.getpid(), "parent": os.getppid(), "threads": os.environ.get("OMP_NUM_THREADS")}}
print(json.dumps(told), flush=True)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv(fork_server.VARIABLE, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with fork_server.started([LOADED], []) as path:
        yield path


def ask(path: str, script: Path, *arguments: str, folder: Path | None = None, **variables: str) -> str:
    """What a worker prints."""
    done = subprocess.run(
        [*shlex.split(fork_server.client(path)), str(script), *arguments],
        env={**os.environ, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(path: str, folder: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    script = folder / "tell.py"
    script.write_text(TELL)
    return json.loads(ask(path, script, *arguments, folder=folder, **variables))


def test_a_worker_has_what_was_loaded_and_its_own_circumstances(server: str, tmp_path: Path) -> None:
    one = told(server, tmp_path, "--a", "b c", OMP_NUM_THREADS="3")
    two = told(server, tmp_path)
    assert (one["loaded"], one["arguments"], one["threads"]) == (True, ["--a", "b c"], "3")
    assert two["threads"] is None  # it is Ray that sets it, by the worker's CPUs
    assert Path(one["folder"]) == tmp_path
    assert one["parent"] == two["parent"]
    assert one["pid"] != two["pid"]


def test_another_environment_is_not_forked(server: str, tmp_path: Path) -> None:
    other = told(server, tmp_path, HF_HOME="/elsewhere")
    assert not other["loaded"]
    assert other["parent"] != told(server, tmp_path)["parent"]


def test_without_its_server_a_worker_starts_all_the_same(tmp_path: Path) -> None:
    assert told(str(tmp_path / "nothing"), tmp_path, "x")["arguments"] == ["x"]


def test_what_a_library_logs_as_it_is_loaded_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(fork_server.VARIABLE, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), str(tmp_path)]))
    (tmp_path / "talkative.py").write_text("import logging\nlogging.warning('no GPU')\n")
    script = tmp_path / "warn.py"
    script.write_text(
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, force=True)\n"
        "logging.warning('talkative' in sys.modules)\n"
    )
    with fork_server.started(["talkative"], []) as path:
        assert ask(path, script) == "WARNING:root:True\n"
    assert "no GPU" not in capfd.readouterr().err


def test_a_server_is_forked_from_one_that_runs(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fork_server.VARIABLE, server)
    with fork_server.started(["this_is_not_there"], []) as path:
        worker = told(path, tmp_path)
    assert worker["loaded"]
    assert psutil.Process(worker["parent"]).parent() == psutil.Process(told(server, tmp_path)["parent"])


def test_a_server_ends_with_its_command(tmp_path: Path) -> None:
    script = tmp_path / "tell.py"
    script.write_text(TELL)
    command = f"""
import subprocess, sys, time
from zephyr_ray.cluster import fork_server
with fork_server.started([], []) as path:
    import shlex
    subprocess.run([*shlex.split(fork_server.client(path)), {str(script)!r}])
    time.sleep(600)
"""
    environment = {name: value for name, value in os.environ.items() if name != fork_server.VARIABLE}
    with subprocess.Popen(
        [sys.executable, "-c", command], env=environment, cwd=REPO, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        server = psutil.Process(json.loads(process.stdout.readline())["parent"])
        process.send_signal(signal.SIGKILL)
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def until(holds: Any) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


DRAW = """
import numpy, sys
from ray._raylet import ObjectRef
print(numpy.random.rand(), ObjectRef.from_random().hex(), "ray.data" in sys.modules)
"""


def drawn(folder: Path, on_ray: Sequence[str], loaded: str, **variables: str) -> list[list[str]]:
    """What three workers draw: of NumPy, and an id of Ray; whether Ray's data library was loaded for them.

    They are asked for when the server has loaded its last module: when a worker tells of the library as it then does.
    """
    script = folder / "draw.py"
    script.write_text(DRAW)
    with fork_server.started(["numpy"], on_ray) as path:
        told(path, folder, **variables)
        loading = psutil.Process(told(path, folder, **variables)["parent"])
        assert loading.is_running()
        until(lambda: ask(path, script, folder=None, **variables).split()[2] == loaded)
        return [ask(path, script, folder=None, **variables).split() for _ in range(3)]


def test_workers_draw_other_numbers_and_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fork_server.VARIABLE, raising=False)
    numbers, ids, loaded = zip(*drawn(tmp_path, ["ray.data"], "True", RAY_JOB_ID="01000000"), strict=True)
    assert loaded == ("True",) * 3
    assert len(set(numbers)) == len(set(ids)) == 3


def test_nothing_is_forked_where_ids_would_come_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that draws an id while it is loaded fixes those of every child."""
    monkeypatch.delenv(fork_server.VARIABLE, raising=False)
    (tmp_path / "draws_an_id.py").write_text("from ray._raylet import ObjectRef\nObjectRef.from_random()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, ids, loaded = zip(*drawn(tmp_path, ["ray.data", "draws_an_id"], "False", RAY_JOB_ID="01000000"), strict=True)
    assert loaded == ("False",) * 3
    assert len(set(ids)) == 3
