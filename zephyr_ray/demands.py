"""Reads a recipe and the name of a stage -> what the stage asks of a cluster at one time, as bundles on labelled nodes.

And, for node groups that are known, whether they can ever hold it. Imports nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from zephyr_ray.recipe import Recipe, ReferenceLogps, Training
from zephyr_ray.recipe_feedback import Deployment, Judging, OfflineModel, Sampling

Bundle = dict[str, float]
"""Resources that must lie on one node, by Ray's names (CPU, GPU)."""


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


def of_stage(recipe: Recipe, stage: str) -> tuple[Demand, ...]:
    """Everything that must be there at the same time for the stage to go on."""
    if stage == "sft" and recipe.sft is not None:
        return (_training("sft.training", recipe.sft.training),)
    if stage == "dpo":
        return (_training("dpo.training", recipe.dpo.training),)
    if stage == "candidates" and recipe.sampling is not None:
        return _sampling(recipe.sampling)
    if stage == "judgments" and recipe.judging is not None:
        return _judging(recipe.judging)
    if stage in ("reference_logps", "held_out_reference", "held_out_policy"):
        return (_workers("reference_logps", recipe.reference_logps),)
    if stage == "held_out" and recipe.held_out is not None:
        return (Demand("held_out", {"CPU": 1}, recipe.held_out.workers),)
    return (Demand(stage, {"CPU": 1}, 1),)  # Ray Data's tasks, one after the other at worst


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


def _training(what: str, training: Training) -> Demand:
    return Demand(what, _bundle(training), training.fewest_workers, training.labels)


def _workers(what: str, section: Sampling | Judging | ReferenceLogps) -> Demand:
    return Demand(what, _bundle(section), section.workers, section.labels)


def _bundle(section: Training | Sampling | Judging | ReferenceLogps | OfflineModel) -> Bundle:
    gpus = getattr(section, "gpus_per_worker", 0)
    return {"CPU": section.cpus_per_worker} | ({"GPU": gpus} if gpus else {})


def _sampling(section: Sampling) -> tuple[Demand, ...]:
    offline = tuple(
        Demand(f"sampling.offline {each.name}", _bundle(each), each.workers * _devices(each))
        for each in section.offline
    )
    return (
        *offline,
        *_deployments("sampling", section.deployments),
        *(() if offline else (_workers("sampling", section),)),
    )


def _judging(section: Judging) -> tuple[Demand, ...]:
    return (*_deployments("judging", section.deployments), _workers("judging", section))


def _deployments(what: str, deployments: Sequence[Deployment]) -> tuple[Demand, ...]:
    return tuple(
        Demand(
            f"{what}.deployments {each.name}",
            {each.accelerator.upper(): 1},
            each.min_replicas * _devices(each),
            each.labels,
        )
        for each in deployments
    )


def _devices(model: Deployment | OfflineModel) -> int:
    """Devices of one engine."""
    return math.prod(int(model.engine.get(name, 1)) for name in ("tensor_parallel_size", "pipeline_parallel_size"))


def suits(demand: Demand, group: NodeGroup) -> bool:
    """Whether the group's nodes carry the labels that are asked for."""
    return all(group.labels.get(key) == value for key, value in demand.labels.items())


def holds(demand: Demand, group: NodeGroup) -> bool:
    """Whether an empty node of the group holds a bundle."""
    return suits(demand, group) and _has(group.resources, demand.bundle)


def _has(left: Bundle, bundle: Bundle) -> bool:
    return all(left.get(kind, 0) >= amount - 1e-9 for kind, amount in bundle.items())
