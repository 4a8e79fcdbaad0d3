"""A Ray cluster as a user starts it: `ray start --head` with its jobs and Serve API, token authentication on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zephyr_ray.cluster import local_cluster
from zephyr_ray.cluster.local_cluster import BIN
from zephyr_ray.cluster.ports import free_port

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
    variables = variables or {}
    ports = {name: free_port() for name in local_cluster.PORTS}  # the suite's other clusters have the usual ones
    options = ["--object-store-memory=536870912"]
    if autoscaling:
        (folder / "autoscaling.yaml").write_text(yaml.safe_dump(autoscaling(f"127.0.0.1:{ports['port']}")))
        options.append(f"--autoscaling-config={folder / 'autoscaling.yaml'}")
    started = local_cluster.start(folder, cpus, ports, variables, *options)
    try:
        yield Head(started.api, started.gcs, started.metrics, local_cluster.environment(folder, variables))
    finally:
        local_cluster.end(started)


def worker_nodes(cluster: Head) -> list[dict[str, Any]]:
    """The nodes that are alive, the head aside, as Ray's API server tells of them."""
    token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    request = urllib.request.Request(f"{cluster.api}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        nodes = json.load(answer)["data"]["result"]["result"]
    return [each for each in nodes if each["state"] == "ALIVE" and not each["is_head_node"]]


def drain(joins: Head, seconds: int) -> None:
    """Tells the cluster that its other nodes are about to go, with the command of cluster.yaml's preStop hook."""
    command = [sys.executable, "-m", "zephyr_ray.cluster.drain", "--seconds", str(seconds)]
    subprocess.run(command, env={**joins.environment, "RAY_ADDRESS": joins.gcs}, cwd=REPO, check=True, timeout=30)


@contextmanager
def node(joins: Head, folder: Path, cpus: int, within: tuple[str, ...] = ()) -> Iterator[None]:
    """Adds a node, and kills it with everything that runs on it.

    Args:
        joins: The head.
        folder: Of its log.
        cpus: Logical CPUs.
        within: A command that runs the node as its own (`unshare -m ...`).
    """
    start = [
        *within,
        str(BIN / "ray"),
        "start",
        f"--address={joins.gcs}",
        f"--num-cpus={cpus}",
        "--node-ip-address=127.0.0.1",
    ]
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
            local_cluster.end_node(process.pid)
            process.wait(timeout=30)
