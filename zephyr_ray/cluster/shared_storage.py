"""Check that every node of a cluster sees a run and the outside files that the run reads.

The nodes of a cluster share a run only through a volume that all mount at the same path, or through a bucket. A node
without the volume would write to its own disk, and the missing rows would be noticed only at the end.
"""

from __future__ import annotations

import logging
import os
import posixpath
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.storage import check_there, is_uri, open_filesystem, write_bytes

_ANSWER_S = 60.0  # a node may first have to fetch the job's working directory and start a process
_ADVICE = "mount a volume that all nodes share at the same path, or use s3://"


@dataclass(frozen=True)
class Seen:
    """A path as it looks on the driver's machine."""

    field: str
    path: str
    look: str
    told: str = ""
    """Shown in messages instead of the path."""


def is_local(path: str) -> bool:
    """Whether a path of a recipe is on this machine, where other nodes may lack it: neither a URI nor a hub id."""
    return not is_uri(path) and os.path.exists(os.path.expanduser(path))


def local_files(field: str, paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(field, path) of the paths that are local."""
    return tuple((field, path) for path in paths if is_local(path))


def local_folder(field: str, path: str) -> tuple[tuple[str, str], ...]:
    """(field, absolute path) of a model's folder; empty if it is not local."""
    return ((field, os.path.abspath(path)),) if is_local(path) else ()


def check_nodes(root: str, files: Iterable[tuple[str, str]]) -> None:
    """Asks every node that can run tasks, apart from the driver's, whether it sees the run and its outside files.

    Nodes that join later are checked by `Artifact.check_current` when a worker first writes there.

    Args:
        root: The run's, as `Run.root` has it: a local path or a URI.
        files: (recipe field, path as workers open it).

    Raises:
        UserError: A node does not see a path as the driver does (names both), or the store of `run.root` refuses it.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here and _runs_tasks(node)]
    if not others:
        return
    seen = [Seen(field, path, look(path)) for field, path in files]
    if is_uri(root):
        _check_on_nodes(others, root, seen)
        return
    filesystem, path = open_filesystem(root)
    probe = posixpath.join(path, f".seen-{uuid.uuid4().hex}")
    write_bytes(filesystem, probe, uuid.uuid4().bytes)
    try:
        _check_on_nodes(others, root, [Seen("run.root", probe, look(probe), path), *seen])
    finally:
        filesystem.delete_file(probe)


def look(path: str) -> str:
    """A cheap summary of a path's content: names and sizes in a folder; size and first bytes of a file."""
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            return f"{size} {stream.read(64).hex()}"
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return " ".join(sorted(f"{os.path.relpath(file, path)}:{os.path.getsize(file)}" for file in files))


def not_here(path: str) -> UserError:
    """The error for a path that a worker's machine lacks."""
    return UserError(f"{path} is not there on {_this_node()}; {_ADVICE}")


def _runs_tasks(node: dict[str, Any]) -> bool:
    """Whether tasks with resources can run on a node; a head is often kept free of them."""
    return any(node["Resources"].get(kind) for kind in ("CPU", "GPU"))


def _check_on_nodes(nodes: list[dict[str, Any]], root: str, seen: list[Seen]) -> None:
    import ray
    from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    find_problem: Any = ray.remote(_find_problem)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [
        find_problem.options(num_cpus=0, max_retries=0, scheduling_strategy=each).remote(root, seen) for each in there
    ]
    answered, silent = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)
    for answer in answered:
        try:
            problem = ray.get(answer)
        except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):  # the node has gone in the meantime
            continue
        if problem is not None:
            raise UserError(problem)
    if silent:
        logging.getLogger(__name__).warning("%d nodes have not said whether they see the run", len(silent))


def _find_problem(root: str, seen: list[Seen]) -> str | None:
    """What is wrong on this node, or None."""
    if is_uri(root):
        try:
            check_there(root, *open_filesystem(root))
        except UserError as error:
            return f"on {_this_node()}: {error}"
    for each in seen:
        if not os.path.exists(os.path.expanduser(each.path)) or look(each.path) != each.look:
            return str(not_here(f"{each.field}={each.told or each.path}"))
    return None


def _this_node() -> str:
    import ray

    if not ray.is_initialized():
        return "this machine"
    here = ray.get_runtime_context().get_node_id()
    address = next((node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here), "")
    return f"node {address} ({here[:12]})"
