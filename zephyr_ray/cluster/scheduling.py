"""Check and wait until the cluster can schedule a stage, and refuse a stage that can never be scheduled.

On a fixed cluster the nodes are counted. A cluster with Ray's autoscaler (version 2) is asked with a placement group,
which is removed as soon as the answer is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.resources import Demand, NodeGroup
from zephyr_ray.errors import UserError

Say = Callable[[str], None]

_LOOK_S = 1  # Ray waits whole seconds for a placement group
_AUTOSCALER_START_S = 10.0  # within which the autoscaler of a new cluster first reports
_CHECK_S = 15.0  # for the whole check before any work; after it the stages find out by waiting
_REFUSALS = 2  # of the autoscaler in a row, after which a demand counts as infeasible
_HEAD = "node:__internal_head__"  # a resource that Ray gives the head alone


def check_job(demands: Mapping[str, Sequence[Demand]]) -> None:
    """Checks before any work that the cluster can hold every stage, as far as that is known without starting its nodes.

    On an autoscaling cluster, asks for one bundle of each kind that no node offers yet, which starts such a node.

    Args:
        demands: What each stage needs at one time, by the stage's name.

    Raises:
        UserError: Naming the stage, what it asks for and what the cluster has.
    """
    wanted = {stage: _with_cluster_labels(each) for stage, each in demands.items()}
    nodes = _usable_nodes()
    misfits = {stage: resources.first_that_does_not_fit(each, nodes) for stage, each in wanted.items()}
    if not any(misfits.values()):
        return
    if not _has_autoscaler():
        stage, misfit = next((stage, misfit) for stage, misfit in misfits.items() if misfit)
        raise _shortage_error(stage, wanted[stage], misfit)
    until = time.monotonic() + _CHECK_S
    for stage, one in _one_bundle_per_kind(wanted):
        if resources.first_that_does_not_fit([one], _usable_nodes()) and not _is_granted([one], until):
            raise _autoscaler_error(stage, wanted[stage], one.what)


def wait_for_room(stage: str, demands: Sequence[Demand], say: Say) -> None:
    """Waits, right before a stage starts, until a shared cluster has room for everything it needs at one time.

    Args:
        stage: Its name.
        demands: What it needs.
        say: Called with a line for the person if the stage has to wait.

    Raises:
        UserError: The cluster can never have that room; names the stage and what it asks for.
    """
    wanted = _with_cluster_labels(demands)
    if not connect.is_joined() or not resources.first_that_does_not_fit(wanted, _usable_nodes(free=True)):
        return
    if not _is_granted(wanted, waiting=lambda: say(f"{stage:<22} waiting for nodes: {_join_demands(wanted)}")):
        until = time.monotonic() + _CHECK_S
        alone = (each.what for each in wanted if not _is_granted([each], until))
        raise _autoscaler_error(stage, wanted, next(alone, "all of it"))


def _with_cluster_labels(wanted: Sequence[Demand]) -> tuple[Demand, ...]:
    """Demands as this cluster is asked for them: without labels if this command started it."""
    return tuple(replace(each, labels=connect.selector(each.labels)) for each in wanted)


def _one_bundle_per_kind(wanted: dict[str, tuple[Demand, ...]]) -> list[tuple[str, Demand]]:
    """One bundle of each kind, with the first stage that asks for it; those that the fewest nodes can hold come first.

    So an impossible one is found before a node is started for another.
    """
    kinds: dict[Any, tuple[str, Demand]] = {}
    for stage, each in wanted.items():
        for demand in each:
            kind = (frozenset(demand.bundle.items()), frozenset(demand.labels.items()))
            kinds.setdefault(kind, (stage, Demand(demand.what, demand.bundle, 1, demand.labels)))
    return sorted(kinds.values(), key=lambda kind: (len(kind[1].bundle), len(kind[1].labels)), reverse=True)


def _join_demands(wanted: Sequence[Demand]) -> str:
    return " and ".join(map(str, wanted))


def _shortage_error(stage: str, wanted: Sequence[Demand], misfit: Demand) -> UserError:
    nodes = [node for node in _usable_nodes() if resources.suits(misfit, node)]
    have = ", ".join(f"{sum(node.resources.get(kind, 0) for node in nodes):g} {kind}" for kind in misfit.bundle)
    place = "the cluster" if connect.is_joined() else "this machine"
    where, what = (" on such nodes", ", or for labels that nodes have") if misfit.labels else ("", "")
    return UserError(
        f"{stage} asks for {_join_demands(wanted)} at one time; for {misfit.what} there is no room: {place} "
        f"has {have}{where}; ask for fewer or smaller workers or replicas{what}, or use a larger cluster"
    )


def _autoscaler_error(stage: str, wanted: Sequence[Demand], what: str) -> UserError:
    return UserError(
        f"{stage} asks for {_join_demands(wanted)} at one time; for {what} there is no room, and the "
        "autoscaler has no nodes that would make any; ask for fewer or smaller workers or replicas, or for labels of a "
        "node group that can hold them, or add such a group to the cluster"
    )


def _usable_nodes(free: bool = False) -> list[NodeGroup]:
    """The nodes that are not draining, each as a group, with their total or (`free`) unused resources."""
    return [
        NodeGroup(node.node_id.hex(), dict(node.available_resources if free else node.total_resources), node.labels, 1)
        for node in _live_nodes(_cluster_status())
        if not _is_draining(node)
    ]


def _live_nodes(status: Any) -> list[Any]:
    """Ray's `NodeState` of each node that is up."""
    from ray.core.generated import autoscaler_pb2

    dead = autoscaler_pb2.NodeStatus.Value("DEAD")  # type: ignore[attr-defined]
    return [node for node in status.cluster_resource_state.node_states if node.status != dead]


def _is_draining(node: Any) -> bool:
    """Whether the node is draining: it accepts no work and ends when its tasks are done."""
    from ray.core.generated import autoscaler_pb2

    return bool(node.status == autoscaler_pb2.NodeStatus.Value("DRAINING"))  # type: ignore[attr-defined]


def _has_autoscaler() -> bool:
    """Whether the cluster has an autoscaler; waits a few seconds for its first report."""
    if not connect.is_joined():  # started by this command
        return False
    deadline = time.monotonic() + _AUTOSCALER_START_S
    while (
        not (reports := _cluster_status().autoscaling_state.autoscaler_state_version > 0)
        and time.monotonic() < deadline
    ):
        time.sleep(_LOOK_S)
    return bool(reports)


def _cluster_status() -> Any:
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
    """Whether the cluster can hold all demands at one time. False if infeasible even when it runs nothing else.

    Args:
        wanted: The demands.
        until: Return True at this time (`time.monotonic`), or as soon as nodes are coming. None: wait until there is
            room.
        waiting: Called once if there is no room yet.
    """
    refused: set[int] = set()
    alone_since = None
    with _placement_group(wanted) as group:
        asked_at = _cluster_status().cluster_resource_state.cluster_resource_state_version
        while not group.wait(_LOOK_S):
            status = _cluster_status()
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
            # A refusal counts if the autoscaler saw the cluster after the others had gone.
            alone_since = alone_since or status.cluster_resource_state.cluster_resource_state_version
            if looked >= alone_since:
                refused.add(looked)
            if len(refused) == _REFUSALS:
                return False
    return True


def _others_are_in_the_way(status: Any, wanted: Iterable[Demand]) -> bool:
    """Whether there may be room once other work is done, or once idle nodes of other groups have gone.

    The latter applies if the autoscaler has one maximum for the nodes of all groups; KubeRay's has one per group.
    """
    counts_all = not any(node.labels.get("ray.io/node-group") == "headgroup" for node in _live_nodes(status))
    state = status.autoscaling_state
    if counts_all and (state.pending_instances or state.pending_instance_requests):
        return True
    for node in _live_nodes(status):
        if _is_draining(node):
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
def _placement_group(wanted: Iterable[Demand]) -> Iterator[Any]:
    """A placement group of all the demands' bundles, removed at the end of the block."""
    from ray.util.placement_group import placement_group, remove_placement_group

    bundles = [(dict(each.bundle), dict(each.labels)) for each in wanted for _ in range(each.count)]
    group = placement_group([bundle for bundle, _ in bundles], bundle_label_selector=[labels for _, labels in bundles])
    try:
        yield group
    finally:
        remove_placement_group(group)
