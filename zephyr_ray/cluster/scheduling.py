"""Checks, and waits, until the cluster can schedule all that a stage asks for at one time; refuses what never fits.

Nodes that are there are counted. A cluster that an autoscaler of Ray (version 2) makes grow is asked instead, by a
placement group that is taken back as soon as the answer is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.resources import Demand, NodeGroup
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from zephyr_ray.pipeline.stage import Stage

Say = Callable[[str], None]

_LOOK_S = 1  # Ray waits whole seconds for a placement group
_AUTOSCALER_START_S = 10.0  # in which the autoscaler of a cluster that has just started shows itself
_CHECK_S = 15.0  # for all that is asked before any work; what is not known then is left to the stages
_SAME_ANSWER = 2  # of the autoscaler's looks in a row
_HEAD = "node:__internal_head__"  # a resource that Ray gives the head alone


def check_job(stages: Sequence[Stage]) -> None:
    """Before any work: whether every stage can be held, as far as that can be known without starting all its nodes.

    On an autoscaling cluster one bundle of each kind that no node offers yet is asked for, which starts a node of it.

    Raises:
        UserError: Naming the stage, what it asks and what there is.
    """
    wanted = {stage.name: _selected(stage.demands) for stage in stages}
    nodes = _nodes()
    misfits = {stage: resources.first_that_does_not_fit(each, nodes) for stage, each in wanted.items()}
    if not any(misfits.values()):
        return
    if not _autoscales():
        stage, misfit = next((stage, misfit) for stage, misfit in misfits.items() if misfit)
        raise _shortage(stage, wanted[stage], misfit)
    until = time.monotonic() + _CHECK_S
    for stage, one in _kinds(wanted):
        if resources.first_that_does_not_fit([one], _nodes()) and not _is_granted([one], until):
            raise _refusal(stage, wanted[stage], one.what)


def make_room(stage: Stage, say: Say) -> None:
    """Right before a stage: waits until a cluster that others use too has room for all it asks at one time.

    Raises:
        UserError: Naming the stage and what it asks, where the cluster can never have that room.
    """
    wanted = _selected(stage.demands)
    if not connect.is_joined() or not resources.first_that_does_not_fit(wanted, _nodes(free=True)):
        return
    if not _is_granted(wanted, waiting=lambda: say(f"{stage.name:<22} waiting for nodes: {_listed(wanted)}")):
        until = time.monotonic() + _CHECK_S
        alone = (each.what for each in wanted if not _is_granted([each], until))
        raise _refusal(stage.name, wanted, next(alone, "all of it"))


def _selected(wanted: Sequence[Demand]) -> tuple[Demand, ...]:
    """Demands as this cluster is asked for them: labels count on one that is joined."""
    return tuple(replace(each, labels=connect.selector(each.labels)) for each in wanted)


def _kinds(wanted: dict[str, tuple[Demand, ...]]) -> list[tuple[str, Demand]]:
    """One bundle of each kind, with the first stage that asks for it; first those that fewest nodes can hold.

    An impossible one is found before any node is started for another.
    """
    kinds: dict[Any, tuple[str, Demand]] = {}
    for stage, each in wanted.items():
        for demand in each:
            kind = (frozenset(demand.bundle.items()), frozenset(demand.labels.items()))
            kinds.setdefault(kind, (stage, Demand(demand.what, demand.bundle, 1, demand.labels)))
    return sorted(kinds.values(), key=lambda kind: (len(kind[1].bundle), len(kind[1].labels)), reverse=True)


def _listed(wanted: Sequence[Demand]) -> str:
    return " and ".join(map(str, wanted))


def _shortage(stage: str, wanted: Sequence[Demand], misfit: Demand) -> UserError:
    nodes = [node for node in _nodes() if resources.suits(misfit, node)]
    have = ", ".join(f"{sum(node.resources.get(kind, 0) for node in nodes):g} {kind}" for kind in misfit.bundle)
    place = "the cluster" if connect.is_joined() else "this machine"
    where, what = (" on such nodes", ", or for labels that nodes have") if misfit.labels else ("", "")
    return UserError(
        f"{stage} asks for {_listed(wanted)} at one time; for {misfit.what} there is no room: {place} "
        f"has {have}{where}; ask for fewer or smaller workers or replicas{what}, or use a larger cluster"
    )


def _refusal(stage: str, wanted: Sequence[Demand], what: str) -> UserError:
    return UserError(
        f"{stage} asks for {_listed(wanted)} at one time; for {what} there is no room, and the "
        "autoscaler has no nodes that would make any; ask for fewer or smaller workers or replicas, or for labels of a "
        "node group that can hold them, or add such a group to the cluster"
    )


def _nodes(free: bool = False) -> list[NodeGroup]:
    """The nodes that stay, each a group of its own, with all their resources or with those that nobody has."""
    return [
        NodeGroup(node.node_id.hex(), dict(node.available_resources if free else node.total_resources), node.labels, 1)
        for node in _alive(_status())
        if not _is_going(node)
    ]


def _alive(status: Any) -> list[Any]:
    """Ray's `NodeState` of each node that is up."""
    from ray.core.generated import autoscaler_pb2

    dead = autoscaler_pb2.NodeStatus.Value("DEAD")  # type: ignore[attr-defined]
    return [node for node in status.cluster_resource_state.node_states if node.status != dead]


def _is_going(node: Any) -> bool:
    """Whether it takes nothing any more and ends when what runs on it is done."""
    from ray.core.generated import autoscaler_pb2

    return bool(node.status == autoscaler_pb2.NodeStatus.Value("DRAINING"))  # type: ignore[attr-defined]


def _autoscales() -> bool:
    """Whether an autoscaler reports to this cluster, or does so within seconds."""
    if not connect.is_joined():  # the command's own
        return False
    deadline = time.monotonic() + _AUTOSCALER_START_S
    while not (reports := _status().autoscaling_state.autoscaler_state_version > 0) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return bool(reports)


def _status() -> Any:
    """Ray's `GetClusterStatusReply`."""
    import ray
    from ray.core.generated import autoscaler_pb2

    reply: Any = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
    address = ray.get_runtime_context().gcs_address
    client: Any = ray._raylet.GcsClient(address)  # type: ignore[attr-defined]
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply


def _is_granted(
    wanted: Sequence[Demand], until: float | None = None, waiting: Callable[[], None] | None = None
) -> bool:
    """Whether the cluster gives all of this at one time. False if infeasible even when all others are done.

    Args:
        wanted: What is asked for.
        until: When to stop asking, by `time.monotonic`; yes then, and as soon as nodes are coming. None: when there is
            room.
        waiting: Called once when there is no room yet.
    """
    refused: set[int] = set()
    alone_since = None
    with _asked(wanted) as group:
        asked_at = _status().cluster_resource_state.cluster_resource_state_version
        while not group.wait(_LOOK_S):
            status = _status()
            state = status.autoscaling_state
            looked = state.last_seen_cluster_resource_state_version
            refuses = any(each.details.startswith(group.id.hex()) for each in state.infeasible_gang_resource_requests)
            if until and (time.monotonic() > until or (looked >= asked_at and not refuses)):
                return True
            if waiting:
                waiting()
                waiting = None
            if not refuses or _others_are_in_the_way(status, wanted):
                refused, alone_since = set(), None
                continue
            # An answer counts if the autoscaler saw the cluster after the others had gone.
            alone_since = alone_since or status.cluster_resource_state.cluster_resource_state_version
            if looked >= alone_since:
                refused.add(looked)
            if len(refused) == _SAME_ANSWER:
                return False
    return True


def _others_are_in_the_way(status: Any, wanted: Iterable[Demand]) -> bool:
    """Whether there may be room once others are done, or once idle nodes of other groups have gone.

    The latter where the autoscaler counts all groups' nodes against one maximum; KubeRay's counts each group's alone.
    """
    counts_all = not any(node.labels.get("ray.io/node-group") == "headgroup" for node in _alive(status))
    state = status.autoscaling_state
    if counts_all and (state.pending_instances or state.pending_instance_requests):
        return True
    for node in _alive(status):
        if _is_going(node):
            return True
        group = NodeGroup("", dict(node.total_resources), node.labels, 1)
        useful = [each for each in wanted if resources.holds(each, group)]
        if not useful and counts_all and _HEAD not in node.total_resources:
            return True
        kinds = {kind for each in useful for kind in each.bundle}
        if any(node.available_resources.get(kind, 0) < node.total_resources[kind] for kind in kinds):
            return True
    return False


@contextmanager
def _asked(wanted: Iterable[Demand]) -> Iterator[Any]:
    """A placement group of all the demands' bundles, taken back at the end."""
    from ray.util.placement_group import placement_group, remove_placement_group

    bundles = [(dict(each.bundle), dict(each.labels)) for each in wanted for _ in range(each.count)]
    group = placement_group([bundle for bundle, _ in bundles], bundle_label_selector=[labels for _, labels in bundles])
    try:
        yield group
    finally:
        remove_placement_group(group)
