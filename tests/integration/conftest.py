"""A small run, made once: the embedded world's random base model, and its pairs up to the reference log-probs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests import embedded_world
from tests.integration import bucket
from tests.integration.bucket import Machine, machine_beside_a_bucket
from tests.integration.jobs import LIBRARIES, REPO, copy_run, manifest, run_job
from tests.integration.servers import Proxy, vllm_server
from zephyr_ray.cluster import connect, fork_server
from zephyr_ray.cluster.local_cluster import BIN

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
"""A name, and what makes the folder of that name -> the folder."""

# A model of a few thousand weights: what is tested is the machinery, not what it learns.
WORLD = (
    f"sft.base={embedded_world.base(hidden_size=64, layers=2)}",
    f"preferences.train={embedded_world.rows('preferences', 151)}",
    "preferences.max_dropped=0.9",
    "dpo.learning_rate=1e-3",
    "dpo.epochs=2",
    "dpo.global_batch=16",
    "dpo.training.micro_batch=4",
    "dpo.training.checkpoint_steps=2",
    "dpo.training.logging_steps=1",
)


@pytest.fixture(scope="session", autouse=True)
def _libraries_are_loaded_once() -> Iterator[None]:
    """Fork servers of the jobs that these tests run are forked from one that has loaded the libraries."""
    connect.set_environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPO))  # for judges of the tests' own
        patch.setenv("PATH", str(BIN), prepend=os.pathsep)  # as every process of a cluster has it
        for name, value in bucket.variables().items():
            patch.setenv(name, value)
        with fork_server.started(LIBRARIES, ()) as socket:
            patch.setenv(fork_server.VARIABLE, socket)
            yield


def _random_model(folder: Path, seed: int) -> Path:
    from zephyr_ray.embedded.model import Sizes, make_base

    make_base(folder, Sizes(hidden_size=64, layers=2), seed=seed)
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Makes a folder by its name, once for all lanes of a test run."""
    is_lane = "PYTEST_XDIST_WORKER" in os.environ
    shared = tmp_path_factory.getbasetemp().parent if is_lane else tmp_path_factory.getbasetemp()

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        target = shared / "made-once" / name
        target.parent.mkdir(exist_ok=True)
        with FileLock(f"{target}.lock"):
            done = target.with_suffix(".done")
            if not done.exists():
                make(target)
                done.touch()
        return target

    return folder


@pytest.fixture(scope="session")
def base_model(made_once: MadeOnce) -> Path:
    """A folder with the embedded world's random model and its tokenizer."""
    return made_once("base", lambda folder: _random_model(folder, seed=0))


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
def here() -> Iterator[Machine]:
    """A machine beside a bucket."""
    with machine_beside_a_bucket() as machine:
        yield machine


@pytest.fixture(scope="session")
def overrides(base_model: Path) -> tuple[str, ...]:
    return (*WORLD, f"model.path={base_model}")


@pytest.fixture(scope="session")
def prepared(made_once: MadeOnce, overrides: tuple[str, ...]) -> Path:
    """A run whose preferences, tokenized pairs and reference log-probs are finished."""
    root = made_once("prepared", lambda root: run_job("reference_logps", root, *overrides))
    # The last step of an epoch has an odd number of pairs, so that two workers take different numbers of them.
    assert manifest(root, "tokenized")["counts"]["out"] % 16 % 2 == 1
    return root


@pytest.fixture(scope="session")
def undisturbed(made_once: MadeOnce, prepared: Path, overrides: tuple[str, ...]) -> Path:
    """The same run after DPO on two workers under ZeRO-3, which nothing disturbed."""
    return made_once("undisturbed", lambda root: run_job("dpo", copy_run(prepared, root), *overrides))


@pytest.fixture(scope="session")
def other_model(made_once: MadeOnce) -> Path:
    """A model like `base_model` with other weights."""
    return made_once("other", lambda folder: _random_model(folder, seed=1))


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
    model.save_pretrained(str(folder))
    return folder
