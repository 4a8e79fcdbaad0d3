"""`cluster.yaml` scaled down to this machine: a head alone, whose autoscaler brings nodes for what is asked of it."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import embedded_world
from tests.integration.autoscaling import HEAD_TYPE, IDLE_S, autoscaling_head, groups, watching, worker_types
from tests.integration.cluster import BIN, REPO, Head, free_port
from tests.integration.jobs import LIBRARIES, command, copy_run, forked_by, metrics, started_fork_server
from tests.integration.load import clients, keeping_busy, until
from tests.integration.service import KEY, Service, describe, make_run
from zephyr_ray.cluster.connect import FAST_PATH

pytestmark = pytest.mark.timeout(900)

MOST_NODES = 2
GONE_S = IDLE_S + 60  # a busy machine ends nodes late


@pytest.fixture(scope="module")
def autoscaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head without CPUs, started for the chat endpoint as `cluster.yaml` starts it."""
    variables = {**FAST_PATH, "ZEPHYR_API_KEYS": KEY, "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    variables["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "5"  # of 30: HAProxy is on this machine
    for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
        variables[name] = str(free_port())
    with autoscaling_head(tmp_path_factory.mktemp("autoscaled"), MOST_NODES, variables) as started:
        yield started


@pytest.fixture(scope="module")
def small(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Two steps of DPO on two workers, which takes two nodes of the group for training."""
    return (
        *overrides,
        "preferences.max_dropped=0.9",
        "dpo.max_steps=2",
        "dpo.training.logging_steps=1",
        "dpo.training.workers=2",
        "dpo.training.zero_stage=0",
        "dpo.training.labels={group: train}",
    )


@pytest.fixture(scope="module")
def loaded(autoscaled: Head) -> Iterator[str]:
    """A fork server for the workers on that cluster's nodes."""
    with started_fork_server(autoscaled.environment, LIBRARIES) as socket:
        yield socket


def submit(cluster: Head, loaded: str, job: str, root: Path, *settings: str) -> str:
    """`ray job submit` of a job, to its good end; what a person saw."""
    # Not with --working-dir: in a copy of this folder workers would have another PYTHONPATH than the fork server.
    entrypoint = f"cd {REPO} && exec {shlex.join(command(job, root, *settings))}"
    ray = [str(BIN / "ray"), "job", "submit", "--address", cluster.api]
    ray += ["--runtime-env-json", json.dumps(forked_by(loaded))]
    ray += ["--", "sh", "-c", entrypoint]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(ray, cwd=REPO, env=cluster.environment, capture_output=True, text=True, timeout=800)
        seen = done.stdout + done.stderr
        if "No available agent to submit job" not in seen or time.monotonic() > deadline:  # it starts after the API
            assert done.returncode == 0, seen[-6000:]
            return seen
        time.sleep(1)


def test_the_groups_of_cluster_yaml() -> None:
    """What the tests below scale down: groups that start at none, found by their label."""
    types = worker_types()
    assert {name: each["labels"] for name, each in types.items()} == {
        name: {"group": name} for name in ("data", "train", "inference")
    }
    assert all(each["min_workers"] == 0 for each in types.values())
    assert [name for name, each in types.items() if each["resources"].get("GPU")] == ["train", "inference"]


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("dpo.training.gpus_per_worker=1", "dpo.training: 2 x 1 CPU + 1 GPU on nodes labelled group=train"),
        ("dpo.training.labels={group: nowhere}", "dpo.training: 2 x 1 CPU on nodes labelled group=nowhere"),
    ],
)
def test_what_no_node_can_ever_hold(
    autoscaled: Head, tmp_path: Path, small: tuple[str, ...], override: str, names: str
) -> None:
    root = tmp_path / "run"
    line = refused(autoscaled, root, *small, override)
    assert names in line
    assert {path.name for path in root.iterdir()} == {"lease", "logs", "recipe.yaml"}
    assert groups(autoscaled) == {}


def refused(cluster: Head, root: Path, *settings: str) -> str:
    """The one line of a driver on the cluster that ends with status 2, within seconds."""
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.gcs}
    done = subprocess.run(
        command("dpo", root, *settings), cwd=REPO, env=environment, capture_output=True, text=True, timeout=60
    )
    seen = done.stdout + done.stderr
    assert done.returncode == 2, seen
    assert "Traceback" not in seen
    (line,) = [line for line in seen.splitlines() if line.startswith("error: ")]
    return line


def test_more_workers_than_the_group_can_have(
    autoscaled: Head, tmp_path: Path, prepared: Path, small: tuple[str, ...]
) -> None:
    """Each of them could be held alone, so it is known when they are asked for together."""
    root = copy_run(prepared, tmp_path / "run")
    line = refused(autoscaled, root, *small, "dpo.training.workers=3")
    assert "dpo.training: 3 x 1 CPU on nodes labelled group=train" in line
    assert not (root / "dpo").exists()


def test_a_pipeline_on_a_cluster_too_small_for_it_at_once(
    autoscaled: Head, loaded: str, tmp_path: Path, base_model: Path
) -> None:
    """An engine and who asks it, then judges, then two training workers: four nodes, of which two can be there.

    For each stage those of its group come, and all go again.
    """
    root = tmp_path / "run"
    engine = (
        f"{{type: deployment, name: random, model: {base_model}, accelerator: cpu, dtype: float32, max_model_len: 128, "
        "max_in_flight: 16, engine: {max_num_seqs: 16}, labels: {group: inference}}"
    )
    settings = (
        f"model.path={base_model}",
        f"prompts.train={embedded_world.rows('prompts', 48)}",
        f"sampling.pool=[{engine}]",
        "sampling.samples=3",
        "sampling.max_tokens=12",
        "sampling.labels={group: data}",
        "judging.judge={type: function, function: tests.integration.judges:length}",
        "judging.labels={group: data}",
        "preferences.max_dropped=0.9",
        "preferences.cut_answers=keep",
        "reference_logps.labels={group: train}",
        "dpo.global_batch=8",
        "dpo.max_steps=2",
        "dpo.training.logging_steps=1",
        "dpo.training.zero_stage=0",
        "dpo.training.labels={group: train}",
    )
    with watching(autoscaled) as seen:
        said = submit(autoscaled, loaded, "pipeline", root, *settings)
        seen.until(lambda shape: shape == {}, GONE_S)
    assert "waiting for nodes: dpo.training: 2 x 1 CPU on nodes labelled group=train" in said
    waited = {line.split()[0] for line in said.splitlines() if "waiting for nodes" in line}
    assert waited >= {"candidates", "dpo"}
    assert min(seen.most("inference"), seen.most("data")) >= 1
    assert seen.most("train") == 2
    assert max(sum(shape.values()) for shape in seen.shapes) == MOST_NODES
    assert (root / "dpo" / "checkpoint" / "model.safetensors").exists()
    assert len(metrics(root, "dpo")) == 2


@pytest.fixture
def chat(autoscaled: Head, loaded: str, base_model: Path, tmp_path: Path) -> Service:
    """The chat endpoint with engines on nodes for inference; its first one is there when this begins."""
    service = describe(autoscaled, tmp_path, make_run(tmp_path / "run", base_model), {})
    service.proxy_location = "HeadOnly"  # nodes on one machine would all listen on its ports
    service.host = "0.0.0.0"  # replicas listen there, and worker nodes have the machine's own address
    service.gateway["labels"] = {"ray.io/node-group": HEAD_TYPE}
    service.fork_server = loaded
    service.deploy(labels={"group": "inference"}, min_replicas=0, max_replicas=2, downscale_delay_s=8)
    return service


def test_chat_brings_a_node_for_each_replica(chat: Service) -> None:
    async def burst() -> None:
        async with clients(chat) as asking, keeping_busy(partial(asking.ask, max_tokens=400), 6):
            await until(lambda: len(chat.replicas()) == 2, 180, "no second replica came")
            await asyncio.sleep(2)
        assert asking.outcome.statuses
        assert asking.outcome.failed == []

    with watching(chat.head) as seen:
        assert seen.look() == {"inference": 1}
        asyncio.run(burst())
        assert seen.most("inference") == 2
        seen.until(lambda shape: shape == {}, GONE_S + 60)
