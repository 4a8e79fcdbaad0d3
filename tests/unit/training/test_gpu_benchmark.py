"""benchmarks/gpu.py where no GPU is: its parts run, they need neither Ray nor DeepSpeed, and it counts FLOPs right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HIDE = "import runpy, sys; sys.modules.update(dict.fromkeys(('ray', 'deepspeed', 'vllm'))); sys.argv = sys.argv[1:]; "
PARTS = "runpy.run_path(sys.argv[0], run_name='__main__'); "
FLOPS = (
    "from types import SimpleNamespace as N; from gpu_parts.training import Flops, Task;"
    "import torch; pair = {'prompt_ids': [1] * 4, 'chosen_ids': [1] * 2, 'rejected_ids': [1] * 6};"
    "layers, head = torch.nn.Linear(100, 10, bias=False), torch.nn.Linear(10, 5, bias=False);"
    "config = N(num_hidden_layers=3, num_attention_heads=2, head_dim=7);"
    "adapter = lambda: [torch.zeros(10, requires_grad=True)];"
    "model = N(model=N(layers=layers), lm_head=head, config=config, parameters=adapter);"
    "[print(Flops(model, Task(3, [pair], 1, lora)).per_pair(model)) for lora in (False, True)]"
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The parts' folder, and the FLOPs that the same process then counts, for it loads what is slow to load once."""
    folder = tmp_path_factory.mktemp("gpu")
    options = ["--tiny", "--parts", "0,2,6", "--out", str(folder), "--deadline", "300"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HIDE + PARTS + FLOPS, str(ROOT / "benchmarks/gpu.py"), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout.split()[-2:]


def test_parts_run_without_ray_deepspeed_and_vllm(ran: tuple[Path, list[str]]) -> None:
    records = [json.loads(line) for line in (ran[0] / "gpu.jsonl").read_text().splitlines()]
    assert [record for record in records if "error" in record or "skipped" in record] == []
    assert records[-1]["done"]
    (judged,) = (record for record in records if "checks" in record)
    assert judged["passed"], judged
    profiled = [record["contender"] for record in records if "busy_ms" in record]
    assert profiled == ["ours", "ours, layers compiled", "TRL precomputed, not recomputing, batch 4"]


def test_flops_of_a_pair(ran: tuple[Path, list[str]]) -> None:
    full, lora = map(float, ran[1])
    # 12 FLOPs for each of 3 layers of 14 numbers and each token with one that it sees
    attention = 12 * 3 * 14 * (4 * 4 / 2 + 2 * 4 + 2 * 2 / 2 + 6 * 4 + 6 * 6 / 2)
    assert full == 6 * 1000 * 12 + 6 * 50 * 8 + attention
    assert lora == (4 * 1000 + 6 * 10) * 12 + 4 * 50 * 8 + attention
