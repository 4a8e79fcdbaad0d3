"""Reads the Kubernetes manifests -> their documents, and the node groups that Ray's autoscaler makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from zephyr_ray.cluster.resources import NodeGroup

REPO = Path(__file__).resolve().parents[1]


def read_documents(file: str) -> list[dict[str, Any]]:
    """The documents of a manifest of this repository."""
    return list(yaml.safe_load_all((REPO / file).read_text()))


def node_types(ray_cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The node types that KubeRay's autoscaler derives from a RayCluster, by Ray's own function."""
    named = ray_cluster | {"metadata": {"namespace": "default"} | ray_cluster["metadata"]}
    types: dict[str, dict[str, Any]] = _derive_autoscaling_config_from_ray_cr(named)["available_node_types"]
    return types


def node_groups(ray_cluster: dict[str, Any]) -> list[NodeGroup]:
    """The same as groups that demands can be placed on, each with as many nodes as it can have."""
    return [
        NodeGroup(name, each["resources"], each["labels"], each["max_workers"])
        for name, each in node_types(ray_cluster).items()
        if each["max_workers"]
    ]
