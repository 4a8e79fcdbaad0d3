"""The cluster way from a person's machine: `up`, jobs submitted and drivers that join, what is refused, `down`."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests import embedded_world
from tests.integration.jobs import REPO, command_lines, manifest
from zephyr_ray.cluster import local_cluster
from zephyr_ray.cluster.local_cluster import BIN, Head

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Cluster:
    """A local cluster as `up` leaves it, and the environment of a command that reaches it."""

    head: Head
    folder: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class Seen:
    status: int
    text: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        assert "Traceback" not in self.text, self.text
        (line,) = [line for line in self.text.splitlines() if line.startswith("error: ")]
        return line


def run(command: list[str], variables: dict[str, str] | None = None, timeout_s: float = 600) -> Seen:
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=timeout_s)
    return Seen(done.returncode, done.stdout + done.stderr)


def local(*what: str, cache: Path) -> Seen:
    return run([sys.executable, "-m", "zephyr_ray", *what], {"ZEPHYR_RAY_CACHE": str(cache)})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cache = tmp_path_factory.mktemp("cache")
    started = local("up", cache=cache)
    assert started.status == 0, started.text
    head = local_cluster.running(cache / "cluster")
    assert head is not None
    yield Cluster(head, cache / "cluster", local_cluster.environment(cache / "cluster", local_cluster.LOOPBACK))
    local("down", cache=cache)


def test_up_again_says_where_the_cluster_is(cluster: Cluster) -> None:
    seen = local("up", cache=cluster.folder.parent)
    assert seen.status == 0
    assert "is up already" in seen.text
    assert f"--address {cluster.head.api}" in seen.text
    assert stat.S_IMODE((cluster.folder / "token").stat().st_mode) == 0o600
    assert (cluster.folder / "token").read_text() not in seen.text
    assert local_cluster.running(cluster.folder) == cluster.head


def test_the_demos_recipe_as_a_job(cluster: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "run"
    small = {
        "run.root": root,
        "dialogues.train": embedded_world.rows("dialogues", 256),
        # after two steps a model knows nothing that a judge could tell apart
        "preferences.train": embedded_world.rows("preferences", 120),
        "sft.max_steps": 2,
        "dpo.max_steps": 2,
        "evaluation.functions": embedded_world.held_out(prompts=8, samples=1, max_new_tokens=4),
    }
    job = ["python", "jobs/dpo.py", "--recipe", "recipes/tiny.yaml"]
    for name, value in small.items():
        job += ["--set", f"{name}={value}"]
    # A variable that the job sets for its workers itself.
    submit = [sys.executable, "jobs/submit.py", "--address", cluster.head.api, "--env", "DO_NOT_TRACK", "--", *job]
    seen = run(submit, cluster.environment | {"DO_NOT_TRACK": "1"})
    assert seen.status == 0, seen.text[-6000:]
    assert "held-out pass rate over 8 prompts" in seen.text
    assert (root / "dpo" / "checkpoint" / "model.safetensors").exists()
    assert manifest(root, "dpo")["trained"]["rows"] == manifest(root, "tokenized")["counts"]["out"]


def test_a_wrong_recipe_as_a_job_and_a_variable_that_it_is_given(cluster: Cluster) -> None:
    command = [sys.executable, "jobs/submit.py", "--address", cluster.head.api, "--env", "ZEPHYR_TEST_SECRET", "--"]
    job = 'test "$ZEPHYR_TEST_SECRET" = plover && exec python jobs/dpo.py --recipe recipes/tiny.yaml --set dpo.betta=1'
    seen = run([*command, "sh", "-c", job], cluster.environment | {"ZEPHYR_TEST_SECRET": "plover"})
    assert seen.status == 2, seen.text
    assert "did you mean beta" in seen.error
    (line,) = [line for line in seen.text.splitlines() if "plover" in line]
    assert "Running entrypoint" in line  # the command, which Ray shows


def test_ray_job_submit_and_a_root_that_would_go_with_the_job(cluster: Cluster) -> None:
    job = ["--working-dir", ".", "--", "python", "jobs/dpo.py", "--recipe", "recipes/tiny.yaml"]
    job += ["--set", "run.root=runs/second"]
    seen = run([str(BIN / "ray"), "job", "submit", "--address", cluster.head.api, *job], cluster.environment)
    assert seen.status == 1  # Ray's own for any
    assert "error: run.root=runs/second lies in the job's own copy of the repository" in seen.text


def test_ctrl_c_leaves_the_job_running(cluster: Cluster) -> None:
    sleeper = ["--name", "sleeper", "--", "sleep", "3601"]
    command = [sys.executable, "jobs/submit.py", "--address", cluster.head.api, *sleeper]
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "", *command],  # as a shell starts what runs in the background
        cwd=REPO,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    while "Running entrypoint" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"ray job stop sleeper --address {cluster.head.api}" in said
    running = psutil.Process(cluster.head.pid).children(recursive=True)
    assert "sleep 3601" in [line for _, line in command_lines(running)]
    again = run(command, cluster.environment)
    assert again.status == 2
    assert "sleeper already exists" in again.error


def test_a_driver_that_joins(cluster: Cluster, tmp_path: Path) -> None:
    job = [sys.executable, "jobs/preferences.py", "--recipe", "recipes/tiny.yaml"]
    job += ["--set", f"run.root={tmp_path / 'run'}"]
    job += ["--set", f"preferences.train={embedded_world.rows('preferences', 40)}"]
    seen = run(job, cluster.environment | {"RAY_ADDRESS": cluster.head.gcs})
    assert seen.status == 0, seen.text
    assert manifest(tmp_path / "run", "preferences")["counts"]["out"] > 0


def _refused(tmp_path: Path, variables: dict[str, str]) -> str:
    """What a driver says of an address or a token, within 30 s and with nothing written."""
    tmp_path.mkdir(exist_ok=True)
    job = [sys.executable, "jobs/preferences.py", "--recipe", "recipes/tiny.yaml"]
    job += ["--set", f"run.root={tmp_path / 'run'}"]
    seen = run(job, {"ZEPHYR_RAY_CACHE": str(tmp_path / "cache")} | variables, timeout_s=30)
    assert seen.status == 2, seen.text
    assert list(tmp_path.iterdir()) == []
    return seen.error


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"RAY_AUTH_TOKEN": "another"}, "takes another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH"),
        ({"RAY_AUTH_MODE": "disabled"}, "wants a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "cannot be opened or is empty: /nowhere; set RAY_AUTH_MODE=token"),
    ],
)
def test_a_wrong_or_missing_token(cluster: Cluster, tmp_path: Path, change: dict[str, str], says: str) -> None:
    assert says in _refused(tmp_path, cluster.environment | {"RAY_ADDRESS": cluster.head.gcs} | change)
    submit = [sys.executable, "jobs/submit.py", "--address", cluster.head.api, "--", "true"]
    seen = run(submit, cluster.environment | change)
    assert seen.status == 2
    assert says in seen.error


def test_a_token_file_that_is_not_there_for_a_cluster_of_ones_own(tmp_path: Path) -> None:
    assert "RAY_AUTH_TOKEN_PATH=/nowhere: No such file" in _refused(tmp_path, {"RAY_AUTH_TOKEN_PATH": "/nowhere"})


def test_addresses_that_are_not_the_clusters(cluster: Cluster, tmp_path: Path) -> None:
    api, gcs = cluster.head.api.removeprefix("http://"), cluster.head.gcs
    joining = {
        api: "is not the cluster's GCS; give host:port of it",
        "127.0.0.1:1": "Connection refused; check the address",
        f"{'x' * 64}.example:6379": "check the address",  # no name: a label has 63 characters at most
        "127.0.0.1": "give host:port",
        f"ray://{gcs}": "cannot run through Ray Client; submit it: zephyr-ray submit",
        f"http://{api}": "zephyr-ray submit --address",
    }
    submitting = {
        f"http://{gcs}": "is not Ray's API server; give http://host:port of it",
        "http://127.0.0.1:1": "Connection refused; check the address",
        gcs: "give the address of Ray's API server",
    }
    folders = [tmp_path / str(number) for number in range(len(joining))]
    with ThreadPoolExecutor(4) as pool:  # they wait, most of the time
        places = [cluster.environment | {"RAY_ADDRESS": address} for address in joining]
        for (address, says), line in zip(joining.items(), pool.map(_refused, folders, places), strict=True):
            assert line.startswith(f"error: RAY_ADDRESS={address}")
            assert says in line
        commands = [[sys.executable, "jobs/submit.py", "--address", address, "--", "true"] for address in submitting]
        for (address, says), seen in zip(submitting.items(), pool.map(run, commands), strict=True):
            assert seen.status == 2
            assert seen.error.startswith(f"error: {address}: ")
            assert says in seen.error


def test_an_address_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        line = _refused(tmp_path, local_cluster.LOOPBACK | {"RAY_ADDRESS": f"{host}:{port}"})
        assert "no answer within" in line


def test_a_cluster_of_another_version(cluster: Cluster, tmp_path: Path) -> None:
    """The head keeps its versions where a driver reads them; for as long as this test they are other ones."""
    write = (
        "import json, sys; from ray._raylet import GcsClient; gcs = GcsClient(address=sys.argv[1]);"
        "old = gcs.internal_kv_get(b'CLUSTER_METADATA', b'cluster');"
        "new = json.dumps(json.loads(old) | {'ray_version': sys.argv[2]}).encode();"
        "gcs.internal_kv_put(b'CLUSTER_METADATA', new, True, b'cluster')"
    )
    rewrite = [sys.executable, "-c", write, cluster.head.gcs]
    import ray

    assert run([*rewrite, "2.9.3"], cluster.environment).status == 0
    try:
        line = _refused(tmp_path, cluster.environment | {"RAY_ADDRESS": cluster.head.gcs})
    finally:
        assert run([*rewrite, ray.__version__], cluster.environment).status == 0
    assert "the cluster has Ray 2.9.3 on Python" in line
    assert f"this command Ray {ray.__version__}" in line


def test_an_api_server_of_another_version(tmp_path: Path) -> None:
    """A server that says what Ray's says when its version is asked."""
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "version").write_text(json.dumps({"version": "4", "ray_version": "2.9.3"}))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        seen = run([sys.executable, "jobs/submit.py", "--address", address, "--", "true"])
        server.shutdown()
    assert seen.status == 2
    assert "the cluster has Ray 2.9.3, this command Ray" in seen.error


def test_down_ends_this_cluster_alone(cluster: Cluster, ray_cluster: None) -> None:
    """With the job above still sleeping in it, and the suite's own cluster beside it."""
    import ray

    processes = psutil.Process(cluster.head.pid).children(recursive=True)
    assert len(processes) > 10
    seen = local("down", cache=cluster.folder.parent)
    assert "is down" in seen.text
    assert [process for process in processes if process.is_running()] == []
    assert not Path(cluster.head.sessions).exists()
    assert ray.get(ray.remote(lambda: "here").remote()) == "here"
    seen = local("submit", "--local", "--", "true", cache=cluster.folder.parent)
    assert seen.status == 2
    assert "start it with zephyr-ray up" in seen.error
