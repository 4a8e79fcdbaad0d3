"""The main job on a Ray cluster that is already there: `ray start --head`, then `ray job submit`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.jobs import REPO, manifest

pytestmark = pytest.mark.timeout(900)

RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node with token authentication, as Ray starts it: the address of its jobs API and the environment."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # as in an activated venv
    environment.pop("RAY_ADDRESS", None)
    gcs, dashboard, agent = free_port(), free_port(), free_port()
    # A short folder: Ray's sockets lie in it, and a socket's path has at most 107 characters.
    start = [RAY, "start", "--head", f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=4", "--block"]
    start += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=536870912"]
    # The job agent's port is fixed by default, and the suite's own cluster holds it.
    start += [f"--dashboard-agent-listen-port={agent}"]
    log = (tmp_path / "head.log").open("w")
    process = subprocess.Popen(start, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 120
    while not _answers(address):
        assert process.poll() is None, (tmp_path / "head.log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "head.log").read_text()
        time.sleep(0.5)
    yield address, environment
    process.terminate()
    process.wait(timeout=60)
    log.close()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=2)
    except urllib.error.HTTPError:  # it is there and asks for the token
        return True
    except OSError:
        return False
    return True


def _submit(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Submits once the head's job agent, which starts after its web server, takes jobs."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=600)
        seen = done.stdout + done.stderr
        if "No available agent to submit job" not in seen or time.monotonic() > deadline:
            return done.returncode, seen
        time.sleep(2)


def test_the_demos_recipe_through_ray_job_submit(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = head
    root = tmp_path / "run"
    small = {
        "run.root": root,
        "tiny.dialogues": 256,
        "tiny.preference_prompts": 120,
        "tiny.held_out_prompts": 8,
        "sft.max_steps": 2,
        "dpo.max_steps": 2,
        "held_out.samples": 1,
        "held_out.max_new_tokens": 4,
    }
    job = ["python", "jobs/dpo.py", "--recipe", "recipes/tiny.yaml"]
    for name, value in small.items():
        job += ["--set", f"{name}={value}"]
    submit = [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--", *job]
    status, seen = _submit(submit, environment)
    assert status == 0, seen[-6000:]
    assert "held-out pass rate over 8 prompts" in seen
    assert (root / "dpo" / "checkpoint" / "model.safetensors").exists()
    assert manifest(root, "dpo")["trained"]["rows"] == manifest(root, "tokenized")["counts"]["out"]
