"""A Ray cluster as a user starts it: `ray start --head` with its jobs and Serve API, token authentication on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from serve.command_line import free_port

BIN = Path(sys.executable).parent
REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Head:
    """A head node: where its API is, where its metrics are, and the environment that reaches it."""

    api: str
    gcs: str
    metrics: str
    environment: dict[str, str]


@contextmanager
def head(
    folder: Path,
    variables: dict[str, str] | None = None,
    cpus: int = 4,
    autoscaling: Callable[[str], dict[str, Any]] | None = None,
) -> Iterator[Head]:
    """Starts a head node with so many logical CPUs, and ends it with everything it started.

    Args:
        folder: For its log and its token.
        variables: Further environment variables.
        cpus: Logical CPUs.
        autoscaling: Makes the configuration of Ray's autoscaler from the head's address.
    """
    token = folder / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_metrics_report_interval_ms": "1000",
        **(variables or {}),
    }
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"  # as in an activated venv
    environment.pop("RAY_ADDRESS", None)
    gcs, dashboard, agent, metrics = (free_port() for _ in range(4))
    start = [
        str(BIN / "ray"),
        "start",
        "--head",
        f"--port={gcs}",
        f"--dashboard-port={dashboard}",
        f"--num-cpus={cpus}",
    ]
    start += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=536870912", "--block"]
    # The agent's port is fixed by default, and the suite's own cluster holds it.
    start += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    if autoscaling:
        (folder / "autoscaling.yaml").write_text(yaml.safe_dump(autoscaling(f"127.0.0.1:{gcs}")))
        start.append(f"--autoscaling-config={folder / 'autoscaling.yaml'}")
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(start, env=environment, cwd=REPO, stdout=log, stderr=subprocess.STDOUT)
        api = f"http://127.0.0.1:{dashboard}"
        deadline = time.monotonic() + 120
        try:
            while not _answers(api):
                assert process.poll() is None, (folder / "head.log").read_text()
                assert time.monotonic() < deadline, (folder / "head.log").read_text()
                time.sleep(0.5)
            yield Head(api, f"127.0.0.1:{gcs}", f"http://127.0.0.1:{metrics}/metrics", environment)
        finally:
            _end(process)


@contextmanager
def node(joins: Head, folder: Path, cpus: int) -> Iterator[None]:
    """Adds a node, and kills it with everything that runs on it."""
    start = [str(BIN / "ray"), "start", f"--address={joins.gcs}", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1"]
    start += ["--object-store-memory=134217728", f"--dashboard-agent-listen-port={free_port()}"]
    start += [f"--metrics-export-port={free_port()}", "--block"]
    with (folder / "node.log").open("w") as log:
        process = subprocess.Popen(start, env=joins.environment, cwd=REPO, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        try:
            while "Ray runtime started" not in (folder / "node.log").read_text():
                assert process.poll() is None, (folder / "node.log").read_text()
                assert time.monotonic() < deadline, (folder / "node.log").read_text()
                time.sleep(0.1)
            yield
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a node at once: told to stop, it would wait half a minute for its workers."""
    started = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in started:
        try:
            each.kill()
        except psutil.NoSuchProcess:  # ended by itself meanwhile
            continue
    process.wait(timeout=30)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=2)
    except urllib.error.HTTPError:  # it is there and asks for the token
        return True
    except OSError:
        return False
    return True
