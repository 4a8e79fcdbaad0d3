"""Drain this node before its pod terminates, so that training writes a checkpoint first.

    python -m zephyr_ray.cluster.drain --seconds 270

is the preStop hook of cluster.yaml's training pods, whose RAY_ADDRESS names the cluster. An idle node leaves the
cluster at once.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time

from zephyr_ray.errors import UserError

_ANSWER_S = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, required=True, help="until the node terminates")
    options = parser.parse_args()
    try:
        return _drain(options.seconds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _drain(seconds: int) -> int:
    """Drains the worker node of this host. Ray's own `drain-node` would have to connect a driver to learn the id."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated import autoscaler_pb2, gcs_pb2

    from zephyr_ray.cluster.preflight import check_driver

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise UserError("RAY_ADDRESS is not set; give host:port of the cluster's GCS in it")
    check_driver()
    client = GcsClient(address=address)
    alive = gcs_pb2.GcsNodeInfo.GcsNodeState.ALIVE  # type: ignore[attr-defined]
    nodes = client.get_all_node_info(timeout=_ANSWER_S).values()
    own = [
        node.node_id
        for node in nodes
        if node.state == alive and not node.is_head_node and node.node_manager_hostname == socket.gethostname()
    ]
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # type: ignore[attr-defined]
    deadline_ms = round((time.time() + seconds) * 1000)
    for node in own:
        accepted, why = client.drain_node(node.hex(), reason, "its pod ends", deadline_ms)
        print(f"{node.hex()}: leaves in {seconds} s" if accepted else f"{node.hex()}: not drained: {why}")
    if not own:
        print(f"{address}: no worker node runs on {socket.gethostname()}", file=sys.stderr)
    return 0 if own else 1


if __name__ == "__main__":
    sys.exit(main())
