"""One worker, two and four, plain and under ZeRO, log the same run, with micro-batches that vary by step."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.packed_workers import CLIP, PLAN, Way, start, train, worker

WAYS: dict[int, tuple[Way, ...]] = {
    2: (
        *(("dpo", stage) for stage in (0, 1, 2, 3)),
        *((kind, stage) for kind in ("groups", "kto", "orpo", "reward_model", "sft") for stage in (0, 3)),
    ),
    4: (("dpo", 0), ("dpo", 3)),
}
"""By the number of workers."""
NOT_THE_RUNS = {"epoch", "train_runtime"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("alone")
    kinds = ("dpo", "groups", "kto", "orpo", "reward_model", "sft")
    return {kind: train(0, 1, (kind, 0), str(folder / kind)) for kind in kinds}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, Way], list[dict]]:
    """What each rank wrote, by the number of workers and the way."""
    found = {}
    for workers, ways in WAYS.items():
        folder = tmp_path_factory.mktemp("together")
        start(worker, workers, ways, str(folder))
        for kind, stage in ways:
            files = [Path(folder, f"{kind}-{stage}-{rank}.json") for rank in range(workers)]
            found[workers, (kind, stage)] = [json.loads(file.read_text()) for file in files]
    return found


@pytest.mark.parametrize(("workers", "way"), [(workers, way) for workers, ways in WAYS.items() for way in ways])
def test_workers_log_the_run_of_one(
    alone: dict[str, dict], together: dict[tuple[int, Way], list[dict]], workers: int, way: Way
) -> None:
    ranks, one = together[workers, way], alone[way[0]]
    first = ranks[0]
    assert len(set(first["micro_batches"])) > 1  # or this would prove nothing
    assert all(rank["micro_batches"] == first["micro_batches"] for rank in ranks)
    assert np.sum([rank["seen"] for rank in ranks], axis=0).tolist() == one["seen"] == PLAN.times_seen().tolist()
    assert set(first["log"][0]) == set(one["log"][0])
    for name in sorted(set(one["log"][0]) - NOT_THE_RUNS):
        ours, theirs = ([row[name] for row in run["log"]] for run in (first, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    assert [row["loss"] for row in first["log"]] == pytest.approx([row["loss"] for row in one["log"]], abs=1e-5)
    assert min(row["grad_norm"] for row in one["log"]) > CLIP  # clipped at every step


@pytest.mark.parametrize(("workers", "way"), [(2, ("sft", 0)), (2, ("sft", 3))])
def test_workers_evaluate_as_one(
    alone: dict[str, dict], together: dict[tuple[int, Way], list[dict]], workers: int, way: Way
) -> None:
    first, second, one = (run["held_out"] for run in (*together[workers, way], alone["sft"]))
    assert first == second
    assert (first["rows"], first["tokens"]) == (one["rows"], one["tokens"])
    assert [point["step"] for point in first["curve"]] == [0, 2, 4, 6]
    for ours, theirs in zip(first["curve"], one["curve"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    assert first["rise"] == pytest.approx(one["rise"], abs=1e-5)
