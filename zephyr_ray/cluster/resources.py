"""What a stage asks of a cluster at one time, as bundles on labelled nodes, and whether node groups can hold it.

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
"""Resources that must lie on one node, by Ray's names (CPU, GPU)."""


class Workers(Protocol):
    """A section of a recipe that has workers; it may have `gpus_per_worker` and `labels` too."""

    @property
    def cpus_per_worker(self) -> float: ...


@dataclass(frozen=True)
class Demand:
    """So many bundles of one kind."""

    what: str
    """The part of the recipe that asks, for a person."""
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
    """Nodes of one kind: what each offers, and how many there can be."""

    name: str
    resources: Bundle
    labels: Mapping[str, str]
    nodes: int


def first_that_does_not_fit(demands: Iterable[Demand], groups: Sequence[NodeGroup]) -> Demand | None:
    """The first demand for which no room is left, when all are placed on empty nodes, the largest bundles first.

    First fit: it may refuse what a cleverer placement would hold, but nodes have room for several bundles of a kind,
    and bundles of different kinds mostly have labels.
    """
    nodes = [(group, dict(group.resources)) for group in groups for _ in range(group.nodes)]
    ordered = sorted(demands, key=lambda each: (each.bundle.get("GPU", 0), sum(each.bundle.values())), reverse=True)
    for demand in ordered:
        for _ in range(demand.count):
            room = next((left for group, left in nodes if suits(demand, group) and _has(left, demand.bundle)), None)
            if room is None:
                return demand
            for kind, amount in demand.bundle.items():
                room[kind] = room.get(kind, 0) - amount
    return None


def of_workers(what: str, section: Workers, count: int) -> Demand:
    """So many workers of a section, each with its CPUs and GPUs on a node with its labels."""
    return Demand(what, bundle(section), count, getattr(section, "labels", {}))


def of_engines(what: str, deployments: Sequence[Deployment]) -> tuple[Demand, ...]:
    """The devices of the replicas that Ray Serve starts with."""
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
    """What one worker takes of its node."""
    gpus = getattr(section, "gpus_per_worker", 0)
    return {"CPU": section.cpus_per_worker} | ({"GPU": gpus} if gpus else {})


def devices(engine: Mapping[str, Any]) -> int:
    """Devices of one engine, by its options."""
    return math.prod(int(engine.get(name, 1)) for name in ("tensor_parallel_size", "pipeline_parallel_size"))


def suits(demand: Demand, group: NodeGroup) -> bool:
    """Whether the group's nodes carry the labels that are asked for."""
    return all(group.labels.get(key) == value for key, value in demand.labels.items())


def holds(demand: Demand, group: NodeGroup) -> bool:
    """Whether an empty node of the group holds a bundle."""
    return suits(demand, group) and _has(group.resources, demand.bundle)


def _has(left: Bundle, bundle: Bundle) -> bool:
    return all(left.get(kind, 0) >= amount - 1e-9 for kind, amount in bundle.items())
