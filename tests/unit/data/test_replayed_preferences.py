"""Which pairs of earlier rounds a round trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.replayed_preferences import is_taken, make_replayed_preferences, to_rows
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import PREFERENCES


def pairs(ids: list[str], source: str) -> pa.Table:
    rows = [
        {
            "pair_id": each,
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": each}],
            "rejected": [{"role": "assistant", "content": ""}],
            "source": f"{source}:{number}",
        }
        for number, each in enumerate(ids)
    ]
    return pa.Table.from_pylist(rows, schema=PREFERENCES)


def written(run: Run, stage: str, ids: list[str]) -> Artifact:
    artifact = run.artifact(stage)
    artifact.begin("f")
    folder = Path(artifact.path) / "data"
    folder.mkdir()
    pq.write_table(pairs(ids, stage), folder / "000.parquet")
    artifact.finish({"fingerprint": "f", "files": [{"name": "data/000.parquet", "rows": len(ids)}]})
    return artifact


def test_a_share_is_drawn_by_seed() -> None:
    ids = [f"{number:032x}" for number in range(2000)]
    table = pairs(ids, "old")
    kept = {
        (seed, share): [
            row["pair_id"] for row in to_rows(table, seed=seed, share=share).to_pylist() if not row["reason"]
        ]
        for seed in (0, 1)
        for share in (0.0, 0.25, 0.5, 1.0)
    }
    assert kept[0, 0.0] == []
    assert kept[0, 1.0] == ids
    assert abs(len(kept[0, 0.25]) - 500) < 100  # standard deviation 19
    assert {*kept[0, 0.25]} < {*kept[0, 0.5]}
    assert kept[0, 0.5] != kept[1, 0.5]
    assert to_rows(table, seed=0, share=0.5).schema.names == mixed_schema(PREFERENCES).names


@pytest.mark.usefixtures("ray_cluster")
def test_own_pairs_all_and_each_once(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    old = [f"{number:04x}" for number in range(40)]
    own, first, second = (
        written(run, "round_3/preferences", ["a1", "a2", old[7]]),
        written(run, "preferences", old[:20]),
        written(run, "round_2/preferences", old[20:]),
    )
    artifact = run.artifact("round_3/replayed_preferences")
    artifact.begin("g")
    report = make_replayed_preferences(0.5, 1, own, [first, second], artifact)
    drawn = {each for each in old if is_taken(each, 1, 0.5)}
    assert 0 < len(drawn) < 40
    kept: list[dict[str, Any]] = [
        row for file in report.files if file.startswith("data/") for row in _rows(artifact, file)
    ]
    assert sorted(row["pair_id"] for row in kept) == sorted({"a1", "a2", old[7], *drawn})
    assert report.rows_in == 43 == report.rows_out + sum(report.dropped.values())
    repeated = 1 if old[7] in drawn else 0
    assert report.dropped == {"not_selected": 40 - len(drawn)} | ({"repeated": 1} if repeated else {})


def _rows(artifact: Artifact, file: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(artifact.path) / file).to_pylist()
    return rows
