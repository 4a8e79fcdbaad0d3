"""A small run, made once: the embedded world's random base model, and its pairs up to the reference log-probs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.command_line import FAST_PATH
from tests.integration.cluster import REPO, free_port, head
from tests.integration.jobs import manifest, run_job
from tests.integration.servers import Proxy, vllm_server
from tests.integration.service import KEY, Service, describe, make_run
from zephyr_ray import recipe as recipes

# A model of a few thousand weights: what is tested is the machinery, not what it learns.
WORLD = (
    "tiny.hidden_size=64",
    "tiny.layers=2",
    "tiny.preference_prompts=151",
    "preferences.train=tiny",
    "preferences.max_dropped=0.9",
    "dpo.learning_rate=1e-3",
    "dpo.epochs=2",
    "dpo.global_batch=16",
    "dpo.training.micro_batch=4",
    "dpo.training.checkpoint_steps=2",
    "dpo.training.logging_steps=1",
)


def _random_model(folder: Path, seed: int) -> Path:
    from zephyr_ray.tiny.model import make_base

    make_base(folder, recipes.Tiny(hidden_size=64, layers=2), seed=seed)
    return folder


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded world's random model and its tokenizer."""
    return _random_model(tmp_path_factory.mktemp("base"), seed=0)


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Iterator[str]:
    """A vLLM server of the random model, which answers as `a` and as `b`, with room for what a judge is asked."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(base_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    with vllm_server(folder, tmp_path_factory.mktemp("vllm") / "log", "a", "b") as url:
        yield url


@pytest.fixture
def proxy(vllm_url: str) -> Iterator[Proxy]:
    """A proxy before that server."""
    with Proxy(vllm_url) as running:
        yield running


@pytest.fixture(scope="session")
def overrides(base_model: Path) -> tuple[str, ...]:
    return (*WORLD, f"model.path={base_model}")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, overrides: tuple[str, ...]) -> Path:
    """A run whose preferences, tokenized pairs and reference log-probs are finished."""
    root = tmp_path_factory.mktemp("prepared") / "run"
    run_job("reference_logps", root, *overrides)
    # The last step of an epoch has an odd number of pairs, so that two workers take different numbers of them.
    assert manifest(root, "tokenized")["counts"]["out"] % 16 % 2 == 1
    return root


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prepared: Path, overrides: tuple[str, ...]) -> Path:
    """The same run after DPO on two workers under ZeRO-3, which nothing disturbed."""
    from tests.integration.jobs import copy_run

    root = copy_run(prepared, tmp_path_factory.mktemp("undisturbed") / "run")
    run_job("dpo", root, *overrides)
    return root


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model like `base_model` with other weights."""
    return _random_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Path:
    """A LoRA adapter of `base_model` that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base_model), LoraConfig(r=8, target_modules="all-linear")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_service(tmp_path_factory: pytest.TempPathFactory, base_model: Path, adapter: Path) -> Iterator[Service]:
    """The endpoint over the model `tiny` and its adapter `tiny-lora`, with an API key, on a cluster of its own."""
    folder = tmp_path_factory.mktemp("service")
    run = make_run(folder / "run", base_model)
    variables = {**FAST_PATH, "ZEPHYR_API_KEYS": KEY, "PYTHONPATH": str(REPO), "VLLM_NO_USAGE_STATS": "1"}
    # One thread an engine, on no core of its own: replicas that start while others answer get their share.
    variables |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    variables["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "5"  # of 30: HAProxy is on this machine
    for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
        variables[name] = str(free_port())
    with head(folder, variables) as started:
        service = describe(started, folder, run, {"tiny-lora": str(adapter)})
        service.deploy()
        yield service


@pytest.fixture(scope="session")
def served_by_command(
    tmp_path_factory: pytest.TempPathFactory, base_model: Path, other_model: Path
) -> Iterator[tuple[str, Path]]:
    """`python serve/app.py` with a run and the model `second` as a process of its own: its address, the run's root."""
    root = make_run(tmp_path_factory.mktemp("by-command") / "run", base_model)
    port = free_port()
    command = [sys.executable, "serve/app.py", "--run", str(root), "--open", "--port", str(port)]
    command += ["--model", f"second={other_model}", "--max-model-len", "512"]
    with (root.parent / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=REPO, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 240
        while "OpenAI API" not in (root.parent / "log").read_text():
            assert process.poll() is None, (root.parent / "log").read_text()
            assert time.monotonic() < deadline, (root.parent / "log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", root
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130, (root.parent / "log").read_text()


@pytest.fixture(scope="session")
def chat_page_url(served_by_command: tuple[str, Path]) -> str:
    return served_by_command[0] + "/"


@pytest.fixture(scope="session")
def feedback_rows(served_by_command: tuple[str, Path]) -> Callable[[], list[dict[str, Any]]]:
    """The rows that the endpoint stored so far, in the order in which they came."""
    folder = served_by_command[1] / "feedback"

    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]

    return rows
