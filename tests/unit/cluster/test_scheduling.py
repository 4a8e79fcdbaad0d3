"""When a refusal of the autoscaler is final, by the state of the cluster's nodes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
from ray import JobID, PlacementGroupID
from ray.core.generated import autoscaler_pb2

from tests.making import stage_of
from zephyr_ray.cluster import scheduling
from zephyr_ray.cluster.resources import Demand
from zephyr_ray.config import loader

TRAIN = {"group": "train"}
WANTED = (Demand("dpo.training", {"CPU": 2, "GPU": 1}, 3, TRAIN),)

Node = tuple[dict[str, float], dict[str, float], dict[str, str]]
HEAD: Node = ({"node:__internal_head__": 1.0}, {}, {})
KUBERAY_HEAD: Node = (HEAD[0], {}, {"ray.io/node-group": "headgroup"})
IDLE_TRAIN: Node = ({"CPU": 4.0, "GPU": 2.0}, {}, TRAIN)
BUSY_TRAIN: Node = ({"CPU": 4.0, "GPU": 2.0}, {"GPU": 1.0}, TRAIN)
IDLE_DATA: Node = ({"CPU": 4.0}, {}, {"group": "data"})
BUSY_DATA: Node = ({"CPU": 4.0}, {"CPU": 4.0}, {"group": "data"})


def _cluster_status(*nodes: Node, pending: int = 0, requested: int = 0, going: bool = False) -> Any:
    """A cluster's state of nodes with so many resources, so many of them taken, and their labels."""
    status = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
    for total, taken, labels in nodes:
        kind = "DRAINING" if going and "CPU" in total else "RUNNING"
        status.cluster_resource_state.node_states.add(
            status=autoscaler_pb2.NodeStatus.Value(kind),  # type: ignore[attr-defined]
            total_resources=total,
            available_resources={name: amount - taken.get(name, 0) for name, amount in total.items()},
            labels=labels,
        )
    for _ in range(pending):
        status.autoscaling_state.pending_instances.add(ray_node_type_name="data")
    if requested:
        status.autoscaling_state.pending_instance_requests.add(ray_node_type_name="data", count=requested)
    return status


@pytest.mark.parametrize(
    ("nodes", "pending", "going", "in_the_way"),
    [
        ((HEAD,), 0, False, False),
        ((HEAD, IDLE_TRAIN), 0, False, False),  # it was counted, and did not suffice
        ((HEAD, BUSY_TRAIN), 0, False, True),  # who has it may be done with it
        ((HEAD, IDLE_DATA), 0, False, True),  # one maximum may be over all groups, and an idle node goes
        ((HEAD, BUSY_DATA), 0, False, True),
        ((HEAD,), 1, False, True),
        ((HEAD, IDLE_TRAIN), 0, True, True),  # one that goes still counts
        ((KUBERAY_HEAD, IDLE_DATA), 0, False, False),  # each group has its own maximum
        ((KUBERAY_HEAD, BUSY_DATA), 1, False, False),
        ((KUBERAY_HEAD, BUSY_TRAIN), 0, False, True),
    ],
)
def test_what_may_be_in_the_way(nodes: tuple[Node, ...], pending: int, going: bool, in_the_way: bool) -> None:
    status = _cluster_status(*nodes, pending=pending, going=going)
    assert scheduling._others_are_in_the_way(status, WANTED) == in_the_way


def test_a_requested_node_is_in_the_way_before_it_is_there() -> None:
    assert scheduling._others_are_in_the_way(_cluster_status(HEAD, requested=1), WANTED)


class _Group:
    """A placement group that is never created."""

    id = PlacementGroupID.of(JobID.from_int(1))

    def wait(self, timeout_seconds: int) -> bool:
        assert isinstance(timeout_seconds, int)  # Ray cuts a fraction off, and 0 does not wait
        return False


def test_a_refusal_from_before_the_others_had_gone_is_not_final(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoscaler's last look may be older than what the nodes are now."""

    def status(now: int, looked: int, *nodes: Node) -> Any:
        reply = _cluster_status(HEAD, *nodes)
        reply.cluster_resource_state.cluster_resource_state_version = now
        reply.autoscaling_state.last_seen_cluster_resource_state_version = looked
        reply.autoscaling_state.infeasible_gang_resource_requests.add(details=f"{_Group.id.hex()}: PACK")
        return reply

    replies = iter(
        [
            status(1, 0),
            status(3, 2, BUSY_DATA),
            status(5, 2),  # the other node has gone, and the autoscaler has not seen it yet
            status(6, 4),
            status(8, 7),
            status(9, 7),  # the same look again
            status(11, 10),
            status(12, 10),
        ]
    )
    monkeypatch.setattr(scheduling, "_cluster_status", lambda: next(replies))
    monkeypatch.setattr(scheduling, "_placement_group", lambda wanted: nullcontext(_Group()))
    assert not scheduling._is_granted(WANTED)
    assert next(replies).cluster_resource_state.cluster_resource_state_version == 12


@pytest.mark.parametrize(("address", "labels"), [("", {}), ("127.0.0.1:6379", TRAIN)])
def test_labels_count_on_a_cluster_that_was_there_before(
    monkeypatch: pytest.MonkeyPatch, address: str, labels: dict[str, str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    recipe = loader.load([], ["model.path=/m", "dpo.training.labels={group: train}"])
    assert [each.labels for each in scheduling._with_cluster_labels(stage_of(recipe, "dpo").demands)] == [labels]


def test_kinds_are_asked_for_from_the_rarest_on() -> None:
    def demand(bundle: Mapping[str, float], count: int = 1, **labels: str) -> Demand:
        return Demand("what", dict(bundle), count, labels)

    wanted = {
        "tokenized": (demand({"CPU": 1}),),
        "candidates": (demand({"GPU": 1}, group="inference"), demand({"CPU": 1}, 4)),
        "dpo": (demand({"CPU": 1, "GPU": 1}, 8, group="train"),),
    }
    asked = [(stage, one.bundle, one.count) for stage, one in scheduling._one_bundle_per_kind(wanted)]
    assert asked == [("dpo", {"CPU": 1, "GPU": 1}, 1), ("candidates", {"GPU": 1}, 1), ("tokenized", {"CPU": 1}, 1)]
