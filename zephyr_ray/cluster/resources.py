"""Resources that a stage needs at one time, as bundles on labelled nodes, and whether node groups can hold them.

Imports nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from zephyr_ray.config.feedback import Deployment

Bundle = dict[str, float]
"""Resources needed on one node, by Ray's names (CPU, GPU)."""


class Workers(Protocol):
    """A section of a recipe that has workers; it may also have `gpus_per_worker` and `labels`."""

    @property
    def cpus_per_worker(self) -> float: ...


@dataclass(frozen=True)
class Demand:
    """`count` equal bundles."""

    what: str
    """The part of the recipe that asks for them, for messages."""
    bundle: Bundle
    count: int
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the nodes must carry."""

    def __str__(self) -> str:
        each = " + ".join(f"{amount:g} {kind}" for kind, amount in self.bundle.items())
        where = " on nodes labelled " + ", ".join(f"{k}={v}" for k, v in self.labels.items()) if self.labels else ""
        return f"{self.what}: {self.count} x {each}{where}"


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind: the resources of each, and how many there can be."""

    name: str
    resources: Bundle
    labels: Mapping[str, str]
    nodes: int


def first_that_does_not_fit(demands: Iterable[Demand], groups: Sequence[NodeGroup]) -> Demand | None:
    """Places all demands on empty nodes, the largest bundles first, and returns the first one that does not fit.

    This is first fit, which may refuse what a cleverer placement would hold. That is rare: nodes hold several bundles
    of one kind, and bundles of different kinds mostly carry labels.
    """
    nodes = [(group, dict(group.resources)) for group in groups for _ in range(group.nodes)]
    ordered = sorted(demands, key=lambda each: (each.bundle.get("GPU", 0), sum(each.bundle.values())), reverse=True)
    for demand in ordered:
        for _ in range(demand.count):
            room = next(
                (left for group, left in nodes if suits(demand, group) and _has_room(left, demand.bundle)), None
            )
            if room is None:
                return demand
            for kind, amount in demand.bundle.items():
                room[kind] = room.get(kind, 0) - amount
    return None


def of_workers(what: str, section: Workers, count: int) -> Demand:
    """The demand of `count` workers of a section, each with its CPUs and GPUs on a node with its labels."""
    return Demand(what, bundle(section), count, getattr(section, "labels", {}))


def of_engines(what: str, deployments: Sequence[Deployment]) -> tuple[Demand, ...]:
    """The demands of the replicas that Ray Serve starts with: one bundle per device."""
    return tuple(
        Demand(
            f"{what} {each.name}",
            {each.accelerator.upper(): 1},
            each.min_replicas * devices(each.engine),
            each.labels,
        )
        for each in deployments
    )


def bundle(section: Workers) -> Bundle:
    """Resources of one worker."""
    gpus = getattr(section, "gpus_per_worker", 0)
    return {"CPU": section.cpus_per_worker} | ({"GPU": gpus} if gpus else {})


def devices(engine: Mapping[str, Any]) -> int:
    """Number of devices of one engine, by its options."""
    return math.prod(int(engine.get(name, 1)) for name in ("tensor_parallel_size", "pipeline_parallel_size"))


def suits(demand: Demand, group: NodeGroup) -> bool:
    """Whether the group's nodes carry the demanded labels."""
    return all(group.labels.get(key) == value for key, value in demand.labels.items())


def holds(demand: Demand, group: NodeGroup) -> bool:
    """Whether an empty node of the group can hold a bundle."""
    return suits(demand, group) and _has_room(group.resources, demand.bundle)


def _has_room(left: Bundle, bundle: Bundle) -> bool:
    return all(left.get(kind, 0) >= amount - 1e-9 for kind, amount in bundle.items())
