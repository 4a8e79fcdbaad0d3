"""One worker and two, plain and under every ZeRO stage, log the same run, with micro-batches that vary by step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from trl.trainer.utils import _find_free_port

from tests.unit.training.packed_workers import CLIP, PLAN, Way, train, worker

WAYS: tuple[Way, ...] = (("dpo", 0), ("dpo", 1), ("dpo", 2), ("dpo", 3), ("sft", 0), ("sft", 3))
NOT_THE_RUNS = {"epoch", "train_runtime"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("alone")
    return {kind: train(0, 1, (kind, 0), str(folder / kind)) for kind in ("dpo", "sft")}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[Way, list[dict]]:
    folder = tmp_path_factory.mktemp("together")
    torch.multiprocessing.spawn(worker, args=(2, _find_free_port(), WAYS, str(folder)), nprocs=2)
    return {
        (kind, stage): [json.loads(Path(folder, f"{kind}-{stage}-{rank}.json").read_text()) for rank in (0, 1)]
        for kind, stage in WAYS
    }


@pytest.mark.parametrize("way", WAYS)
def test_two_workers_log_the_run_of_one(alone: dict[str, dict], together: dict[Way, list[dict]], way: Way) -> None:
    (first, second), one = together[way], alone[way[0]]
    assert len(set(first["micro_batches"])) > 1  # or this would prove nothing
    assert first["micro_batches"] == second["micro_batches"]
    assert np.add(first["seen"], second["seen"]).tolist() == one["seen"] == PLAN.times_seen().tolist()
    assert set(first["log"][0]) == set(one["log"][0])
    for name in sorted(set(one["log"][0]) - NOT_THE_RUNS):
        ours, theirs = ([row[name] for row in run["log"]] for run in (first, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    assert min(row["grad_norm"] for row in one["log"]) > CLIP  # clipped at every step
