"""Reads what stages demand and what the cluster is -> nothing, or why the cluster can never hold them.

Nodes that are there are counted. A cluster that Ray's autoscaler (version 2) makes grow is asked instead: a placement
group shows within seconds whether it could be given, and is taken back at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from zephyr_ray import demands
from zephyr_ray.demands import Demand, NodeGroup
from zephyr_ray.errors import UserError
from zephyr_ray.recipe import Recipe

_LOOK_S = 1.0
_TRUST_S = 30.0  # after which an autoscaler that has not looked yet is trusted to give what is asked
_SAME_ANSWER = 3  # looks in a row: a node that is just going makes one look wrong


def check_job(recipe: Recipe, stages: Sequence[str]) -> None:
    """Before any work: whether every stage can be held, as far as that can be known without starting all its nodes.

    On an autoscaling cluster one bundle of each kind that no node offers yet is asked for, which starts a node of it.

    Raises:
        UserError: Naming the stage, what it asks and what there is.
    """
    wanted = {stage: demands.of_stage(recipe, stage) for stage in stages}
    if not _autoscales():
        for stage, each in wanted.items():
            _refuse_misfit(stage, each)
        return
    nodes = _nodes()
    asked: set[str] = set()
    for stage, each in wanted.items():
        for demand in each:
            one = Demand(demand.what, demand.bundle, 1, demand.labels)
            kind = f"{sorted(demand.bundle.items())} {sorted(demand.labels.items())}"
            if kind not in asked and demands.first_that_does_not_fit([one], nodes):
                asked.add(kind)
                _refuse_impossible(stage, [one])


def check_stage(recipe: Recipe, stage: str) -> None:
    """Right before a stage: whether an autoscaling cluster can give all it asks at one time.

    Raises:
        UserError: Naming the stage, what it asks and what there is.
    """
    if _autoscales():
        _refuse_impossible(stage, demands.of_stage(recipe, stage))


def _refuse_misfit(stage: str, wanted: Sequence[Demand]) -> None:
    misfit = demands.first_that_does_not_fit(wanted, _nodes())
    if misfit is not None:
        raise _shortage(stage, wanted, misfit)


def _refuse_impossible(stage: str, wanted: Sequence[Demand]) -> None:
    if not _impossible(wanted):
        return
    for demand in wanted if len(wanted) > 1 else ():  # which of them is it
        if _impossible([demand]):
            raise _shortage(stage, wanted, demand)
    raise _shortage(stage, wanted, wanted[-1])


def _shortage(stage: str, wanted: Sequence[Demand], misfit: Demand) -> UserError:
    import ray

    nodes = [node for node in _nodes() if demands.suits(misfit, node)]
    have = ", ".join(f"{sum(node.resources.get(kind, 0) for node in nodes):g} {kind}" for kind in misfit.bundle)
    place = "this machine" if len(ray.nodes()) == 1 and not _autoscales() else "the cluster"
    grow = " and cannot get more" if _autoscales() else ""
    where = " on such nodes" if misfit.labels else ""
    return UserError(
        f"{stage} asks for {' and '.join(map(str, wanted))} at one time; for {misfit.what} there is no room: {place} "
        f"has {have}{where}{grow}; ask for fewer or smaller workers or replicas, or use a larger cluster"
    )


def _nodes() -> list[NodeGroup]:
    """The nodes that are alive, each a group of its own."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    return [NodeGroup(node["NodeID"], node["Resources"], node["Labels"], 1) for node in alive]


def _autoscales() -> bool:
    """Whether an autoscaler reports to this cluster."""
    return _status().autoscaling_state.autoscaler_state_version > 0


def _status() -> Any:
    """Ray's `GetClusterStatusReply`."""
    import ray
    from ray.core.generated import autoscaler_pb2

    reply: Any = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
    address = ray.get_runtime_context().gcs_address
    client: Any = ray._raylet.GcsClient(address)  # type: ignore[attr-defined]
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply


def _impossible(wanted: Sequence[Demand]) -> bool:
    """Whether the autoscaler says that it cannot place the demands though nothing else is in their way."""
    with _asked(wanted) as group:
        return _answer(group, wanted)


def _answer(group: Any, wanted: Sequence[Demand]) -> bool:
    deadline = time.monotonic() + _TRUST_S
    asked_at, refusals = None, 0
    while time.monotonic() < deadline and not group.wait(_LOOK_S):
        status = _status()
        if asked_at is None:
            asked_at = status.cluster_resource_state.cluster_resource_state_version
        if status.autoscaling_state.last_seen_cluster_resource_state_version < asked_at:
            continue
        infeasible = status.autoscaling_state.infeasible_gang_resource_requests
        refusals = refusals + 1 if any(each.details.startswith(group.id.hex()) for each in infeasible) else 0
        if not refusals or _in_use(wanted):
            return False  # its nodes are coming, or others have them now
        if refusals == _SAME_ANSWER:
            return True
    return False


def _in_use(wanted: Iterable[Demand]) -> bool:
    """Whether somebody has resources on nodes that suit a demand."""
    import ray

    free = ray._private.state.available_resources_per_node()
    return any(
        free.get(node.name, {}).get(kind, 0) < node.resources.get(kind, 0)
        for demand in wanted
        for node in _nodes()
        if demands.suits(demand, node)
        for kind in demand.bundle
    )


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
