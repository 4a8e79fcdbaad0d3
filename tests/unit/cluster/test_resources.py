"""What stages ask for at one time, and whether node groups can hold it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import stage_of
from zephyr_ray.cluster.resources import Demand, NodeGroup, first_that_does_not_fit
from zephyr_ray.config import loader

TINY = str(Path(__file__).parents[3] / "recipes" / "tiny.yaml")


def _of(stage: str, *overrides: str) -> list[str]:
    return [str(demand) for demand in stage_of(loader.load([TINY], list(overrides)), stage).demands]


def test_training_asks_for_its_workers() -> None:
    labelled = ("dpo.training.gpus_per_worker=1", "dpo.training.labels={group: train}")
    assert _of("dpo") == ["dpo.training: 2 x 1 CPU"]
    assert _of("dpo", *labelled) == ["dpo.training: 2 x 1 CPU + 1 GPU on nodes labelled group=train"]


def test_held_out_pairs_are_scored_by_what_scores_the_reference() -> None:
    asked = ("preferences.held_out=FILE", "reference_logps.workers=3", "reference_logps.gpus_per_worker=1")
    assert _of("held_out_policy", *asked) == _of("held_out_reference", *asked) == ["reference_logps: 3 x 1 CPU + 1 GPU"]


def test_elastic_training_asks_for_the_fewest() -> None:
    assert _of("sft", "sft.training.workers=[1, 8]") == ["sft.training: 1 x 1 CPU"]


def test_sampling_asks_for_engines_and_workers_together() -> None:
    pool = (
        "sampling.pool=[{type: deployment, name: a, model: sft, accelerator: cpu}, "
        "{type: deployment, name: b, model: sft, min_replicas: 2, "
        "max_replicas: 3, engine: {tensor_parallel_size: 4}, labels: {group: inference}}]"
    )
    assert _of("candidates", pool, "sampling.workers=3") == [
        "sampling.pool a: 1 x 1 CPU",
        "sampling.pool b: 8 x 1 GPU on nodes labelled group=inference",
        "sampling: 3 x 1 CPU",
    ]


def test_offline_models_ask_for_every_device_of_every_engine() -> None:
    pool = (
        "sampling.pool=[{type: offline, name: a, model: /m, workers: 2, cpus_per_worker: 2, gpus_per_worker: 1, "
        "engine: {tensor_parallel_size: 2}}]"
    )
    assert _of("candidates", pool) == ["sampling.pool a: 4 x 2 CPU + 1 GPU"]


def test_other_stages_ask_for_a_cpu() -> None:
    assert _of("tokenized") == ["tokenized: 1 x 1 CPU"]


GROUPS = (
    NodeGroup("data", {"CPU": 4}, {"group": "data"}, 2),
    NodeGroup("train", {"CPU": 8, "GPU": 4}, {"group": "train"}, 2),
)


@pytest.mark.parametrize(
    ("bundle", "count", "labels", "fits"),
    [
        ({"CPU": 1, "GPU": 1}, 8, {"group": "train"}, True),
        ({"CPU": 1, "GPU": 1}, 9, {"group": "train"}, False),  # no third node
        ({"CPU": 4, "GPU": 1}, 4, {"group": "train"}, True),
        ({"CPU": 4, "GPU": 1}, 5, {"group": "train"}, False),  # GPUs are left, but no CPUs beside them
        ({"CPU": 9}, 1, {}, False),  # 24 CPUs in all, but no node has nine
        ({"CPU": 1}, 24, {}, True),
        ({"CPU": 1}, 1, {"group": "inference"}, False),
        ({"TPU": 1}, 1, {}, False),
    ],
)
def test_bundles_lie_on_nodes(bundle: dict[str, float], count: int, labels: dict[str, str], fits: bool) -> None:
    demand = Demand("what", bundle, count, labels)
    assert (first_that_does_not_fit([demand], GROUPS) is None) == fits


def test_what_asks_at_one_time_shares_the_nodes() -> None:
    engines, workers = Demand("engines", {"GPU": 4}, 2), Demand("workers", {"CPU": 2}, 12)
    assert first_that_does_not_fit([workers, engines], GROUPS) is None
    more = Demand("more", {"CPU": 2}, 1)
    assert first_that_does_not_fit([workers, more, engines], GROUPS) == more
