"""Whether every node of a cluster sees a run and the files that it reads from outside; else one line names both.

A cluster's nodes share a run only through a volume that all of them mount at the same place, or through a bucket. A
node that mounts nothing there would be written to all the same, and the rows would be missed only at the end.
"""

from __future__ import annotations

import logging
import os
import posixpath
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zephyr_ray.errors import UserError
from zephyr_ray.storage import is_uri, write_bytes

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Artifact, Run

_ANSWER_S = 60.0  # a node may have to fetch the job's working directory and start a process first
_ADVICE = "mount a volume that all nodes share at the same path, or use s3://"


@dataclass(frozen=True)
class Seen:
    """A path as it looks on the driver's machine."""

    field: str
    path: str
    look: str
    told: str = ""
    """What a person is told in the place of the path."""


def is_local(path: str) -> bool:
    """Whether a path of a recipe is one of this machine, which other nodes may lack: no URI and no hub id."""
    return not is_uri(path) and os.path.exists(os.path.expanduser(path))


def local_files(field: str, paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(field, path) of those that are local."""
    return tuple((field, path) for path in paths if is_local(path))


def local_folder(field: str, path: str) -> tuple[tuple[str, str], ...]:
    """(field, absolute path) of a model's folder, where it is local."""
    return ((field, os.path.abspath(path)),) if is_local(path) else ()


def check_nodes(run: Run, files: Iterable[tuple[str, str]]) -> None:
    """Asks every node that works beside the driver's whether it sees the run and these files from outside of it.

    Nodes that join later find out by `check_visible`.

    Args:
        run: Whose root they must see.
        files: (recipe field, path as workers open it).

    Raises:
        UserError: Naming the first path that a node does not see as the driver does, and the node; or what the store
            of `run.root` says to it.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here and _works(node)]
    if not others:
        return
    seen = [Seen(field, path, look(path)) for field, path in files]
    if not run.is_local:
        _ask(others, run.root, seen)
        return
    probe = posixpath.join(run.path, f".seen-{uuid.uuid4().hex}")
    write_bytes(run.filesystem, probe, uuid.uuid4().bytes)
    try:
        _ask(others, run.root, [Seen("run.root", probe, look(probe), run.path), *seen])
    finally:
        run.filesystem.delete_file(probe)


def look(path: str) -> str:
    """What tells a path's content from another one's at a glance: names and sizes; of a small file its bytes."""
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            return f"{size} {stream.read(64).hex()}"
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return " ".join(sorted(f"{os.path.relpath(file, path)}:{os.path.getsize(file)}" for file in files))


def check_visible(artifact: Artifact) -> None:
    """Before a worker writes: fails on a machine that does not see the stage that the driver has begun.

    Raises:
        UserError: Naming the artifact and the node.
    """
    if artifact.begun is None or not artifact.run.is_local:
        return
    found = artifact.read_json("unfinished.json")
    if found is None or found["fingerprint"] != artifact.begun:
        raise not_here(artifact.path)


def not_here(path: str) -> UserError:
    """That a worker's machine lacks a path."""
    return UserError(f"{path} is not there on {_this_node()}; {_ADVICE}")


def _works(node: dict[str, Any]) -> bool:
    """Whether tasks with resources can come to a node: a head is often kept free of them."""
    return any(node["Resources"].get(kind) for kind in ("CPU", "GPU"))


def _ask(nodes: list[dict[str, Any]], root: str, seen: list[Seen]) -> None:
    import ray
    from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask: Any = ray.remote(_complaint)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [ask.options(num_cpus=0, max_retries=0, scheduling_strategy=each).remote(root, seen) for each in there]
    answered, silent = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)
    for answer in answered:
        try:
            complaint = ray.get(answer)
        except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):  # the node has gone meanwhile
            continue
        if complaint is not None:
            raise UserError(complaint)
    if silent:
        logging.getLogger(__name__).warning("%d nodes have not said whether they see the run", len(silent))


def _complaint(root: str, seen: list[Seen]) -> str | None:
    """What is wrong on this node."""
    from zephyr_ray.pipeline.artifacts import Run

    if is_uri(root):
        try:
            Run(root).check_readable()
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
