"""One worker and two, plain and under every ZeRO stage, log the same run, with micro-batches that vary by step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from trl.trainer.utils import _find_free_port

from tests.unit.training.packed_workers import CLIP, PLAN, train, worker

STAGES = (0, 1, 2, 3)
NOT_THE_RUNS = {"epoch", "train_runtime"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return train(0, 1, 0, str(tmp_path_factory.mktemp("alone")))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict]]:
    folder = tmp_path_factory.mktemp("together")
    torch.multiprocessing.spawn(worker, args=(2, _find_free_port(), STAGES, str(folder)), nprocs=2)
    return {s: [json.loads(Path(folder, f"{s}-{rank}.json").read_text()) for rank in (0, 1)] for s in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_two_workers_log_the_run_of_one(alone: dict, together: dict[int, list[dict]], stage: int) -> None:
    first, second = together[stage]
    assert len(set(first["micro_batches"])) > 1  # or this would prove nothing
    assert first["micro_batches"] == second["micro_batches"]
    assert np.add(first["seen"], second["seen"]).tolist() == alone["seen"] == PLAN.times_seen().tolist()
    assert set(first["log"][0]) == set(alone["log"][0])
    for name in sorted(set(alone["log"][0]) - NOT_THE_RUNS):
        ours, theirs = ([row[name] for row in run["log"]] for run in (first, alone))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    assert min(row["grad_norm"] for row in alone["log"]) > CLIP  # clipped at every step
