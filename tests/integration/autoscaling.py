"""Reads `cluster.yaml` -> its cluster on one machine: a head, and an autoscaler that starts and ends small nodes.

The autoscaler is Ray's own, version 2; its node types are what KubeRay's autoscaler makes of the RayCluster, through
`scaled_down`. Its nodes are real raylets, which Ray's provider for tests starts here.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.integration.cluster import REPO, Head, head, worker_nodes
from tests.kuberay import node_types, read_documents

IDLE_S = 10
HEAD_TYPE = "ray.head.default"  # Ray's provider for tests knows no other
_HEAD_NODE = f"{'f' * 51}00000"


def scaled_down(node_type: dict[str, Any]) -> dict[str, Any]:
    """A node type of `cluster.yaml` for a machine with two cores and no GPU; its name, labels and minimum stay.

    A GPU node becomes a node with one logical CPU, which a worker or an engine takes as it would take the GPUs; another
    node has two. There are two nodes of a type at most, and they go when idle for IDLE_S seconds.
    """
    return {
        **node_type,
        "resources": {"CPU": 1 if node_type["resources"].get("GPU") else 2, "object_store_memory": 100_000_000},
        "max_workers": min(2, node_type["max_workers"]),
        "idle_timeout_s": IDLE_S,
    }


def worker_types() -> dict[str, Any]:
    """The node types of `cluster.yaml` as KubeRay's autoscaler reads them, without the head's."""
    (cluster,) = [each for each in read_documents("cluster.yaml") if each["kind"] == "RayCluster"]
    return {name: each for name, each in node_types(cluster).items() if name != "headgroup"}


def _config(most_nodes: int, gcs: str) -> dict[str, Any]:
    """The autoscaler's configuration, with so many worker nodes at most over all types."""
    head_type = {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "one-machine",
        "max_workers": most_nodes,
        "idle_timeout_minutes": IDLE_S / 60,
        "upscaling_speed": 1000,
        "provider": {
            "type": "external",
            "module": "tests.integration.nodes.Provider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "gcs_address": gcs,
            "head_node_id": _HEAD_NODE,
        },
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: head_type,
            **{name: scaled_down(each) for name, each in worker_types().items()},
        },
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in lists},
    }


@contextmanager
def autoscaling_head(folder: Path, most_nodes: int, variables: dict[str, str] | None = None) -> Iterator[Head]:
    """A cluster of a head without CPUs, which grows by at most so many nodes."""
    variables = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",  # of 5
        "PYTHONPATH": str(REPO),  # for `nodes`
        "RAY_enable_autoscaler_v2": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": _HEAD_NODE,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_NODE,
        "RAY_NODE_TYPE_NAME": HEAD_TYPE,  # Ray's label ray.io/node-group
        **(variables or {}),
    }
    with head(folder, variables, cpus=0, autoscaling=partial(_config, most_nodes)) as started:
        yield started


@dataclass
class Seen:
    """The worker nodes of a cluster over time: how many of each group, whenever that changed."""

    head: Head
    shapes: list[dict[str, int]] = field(default_factory=list)

    def look(self) -> dict[str, int]:
        shape = groups(self.head)
        if not self.shapes or self.shapes[-1] != shape:
            self.shapes.append(shape)
        return shape

    def most(self, group: str) -> int:
        return max(shape.get(group, 0) for shape in self.shapes)

    def until(self, holds: Callable[[dict[str, int]], bool], seconds: float) -> None:
        """Waits for a shape."""
        deadline = time.monotonic() + seconds
        while not holds(self.look()):
            assert time.monotonic() < deadline, self.shapes
            time.sleep(0.5)


@contextmanager
def watching(cluster: Head) -> Iterator[Seen]:
    """Looks at the cluster's nodes while the block runs."""
    seen, stop = Seen(cluster), threading.Event()
    seen.look()

    def look() -> None:
        while not stop.wait(0.5):
            seen.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def groups(cluster: Head) -> dict[str, int]:
    """How many worker nodes of each group are alive."""
    return dict(Counter(each["labels"]["group"] for each in worker_nodes(cluster)))
