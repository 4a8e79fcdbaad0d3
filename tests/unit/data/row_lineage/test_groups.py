"""A pair is found in its group, and counted as often as the group was trained on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.data.row_lineage import lookup
from zephyr_ray.data.row_lineage.models import times_trained
from zephyr_ray.data.row_lineage.trace import Rows
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.schemas import GROUPS
from zephyr_ray.training.sampler import Plan

FILES = {"data/0.parquet": {"c": ["p1", "p2"], "a": []}, "data/1.parquet": {"b": ["p3", "p4", "p5"]}}


def groups(root: Path) -> Rows:
    artifact = Run(str(root)).artifact("tokenized_groups")
    artifact.begin("x")
    (Path(artifact.path) / "data").mkdir()
    for name, held in FILES.items():
        rows = [
            {"group_id": group, "prompt_ids": [1], "completions": [], "chosen": [], "rejected": [], "pair_ids": pairs}
            for group, pairs in held.items()
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=GROUPS), Path(artifact.path) / name, row_group_size=1)
    facts: Any = SimpleNamespace(stage="tokenized_groups", counts=SimpleNamespace(rows_out=3))
    return Rows(facts, artifact, tuple(FILES), tuple(GROUPS.names))


def test_a_pair_is_found_in_its_group(tmp_path: Path) -> None:
    held = groups(tmp_path)
    assert held.spots(lookup.is_one_of(["p4"])) == [lookup.Spot("data/1.parquet", 1, "p4")]
    assert held.spots(lookup.is_one_of(["p2", "p3"])) == [
        lookup.Spot("data/0.parquet", 1, "p2"),
        lookup.Spot("data/1.parquet", 1, "p3"),
    ]
    assert held.spots(lookup.begins_with("q")) == []


def test_it_is_trained_on_as_often_as_its_group(tmp_path: Path) -> None:
    held = groups(tmp_path)
    seen = Plan(3, 2, 3, seed=7, max_steps=3).times_seen().tolist()
    assert len(set(seen)) == 2
    section = {"global_batch": 2, "epochs": 3, "max_steps": 3}
    for pair, number in (("p3", 1), ("p1", 2)):  # in the order of the groups' ids
        (spot,) = held.spots(lookup.is_one_of([pair]))
        assert times_trained(held, spot, section, 7) == seen[number]
