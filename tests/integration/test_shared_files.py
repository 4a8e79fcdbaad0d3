"""Nodes that do not share the run's folder: one of them has a mount namespace of its own, with a disk over it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import embedded_world
from tests.integration.cluster import Head, head, node
from tests.integration.jobs import REPO, command, copy_run, run_job

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode != 0,
        reason="a mount namespace needs CAP_SYS_ADMIN",
    ),
]

SMALL = (f"preferences.train={embedded_world.rows('preferences', 8)}", "preferences.max_dropped=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


HOLD = """
import ray, time
ray.init()
holder = ray.remote(num_cpus=2)(type("Holder", (), {"is_up": lambda self: True})).remote()
print(ray.get(holder.is_up.remote()), flush=True)
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head whose two CPUs are taken, so that all work goes to the node that joins."""
    with head(tmp_path_factory.mktemp("head"), cpus=2) as started:
        variables = {**started.environment, "RAY_ADDRESS": started.gcs}
        with subprocess.Popen([sys.executable, "-c", HOLD], env=variables, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert "True" in holder.stdout.readline()
                yield started
            finally:
                holder.kill()


@pytest.fixture
def busy_head(started: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    """That head; this test's jobs run on its cluster."""
    for name, value in {**started.environment, "RAY_ADDRESS": started.gcs}.items():
        monkeypatch.setenv(name, value)
    return started


@contextmanager
def stranger(joins: Head, folder: Path, log: Path) -> Iterator[None]:
    """A node with two CPUs that sees an empty disk in the folder's place."""
    with node(joins, log, 2, ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder))):
        yield


def refused(seen: str) -> str:
    """The one line, without the node's address."""
    assert "Traceback" not in seen
    (line,) = [line for line in seen.splitlines() if line.startswith("error: ")]
    return re.sub(r" on node [\d.]+ \([0-9a-f]{12}\); mount a volume that all nodes share .*", " on NODE", line)


@contextmanager
def waiting(job: str, root: Path, *overrides: str, log: Path) -> Iterator[Callable[[], str]]:
    """A job that waits for a node for its stage; yields what waits for its end and returns the one line."""
    with (log / "seen").open("w") as seen:
        process = subprocess.Popen(command(job, root, *overrides), stdout=seen, stderr=subprocess.STDOUT, cwd=REPO)
    deadline = time.monotonic() + 120
    try:
        while "waiting for nodes" not in (log / "seen").read_text():
            assert process.poll() is None, (log / "seen").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

        def end() -> str:
            assert process.wait(timeout=240) == 2, (log / "seen").read_text()
            return refused((log / "seen").read_text())

        yield end
    finally:
        process.kill()


def test_a_node_that_joins_later_does_not_write_beside_the_run(busy_head: Head, folder: Path, tmp_path: Path) -> None:
    root = folder / "run"
    with waiting("preferences", root, *SMALL, log=tmp_path) as end, stranger(busy_head, folder, tmp_path):
        assert end() == f"error: {root}/preferences is not there on NODE"
        assert not (root / "preferences" / "manifest.json").exists()

        early = run_job("preferences", root, *SMALL, expect=2)
        assert refused(early) == f"error: run.root={root} is not there on NODE"

        rows, elsewhere = folder / "rows.jsonl", tmp_path / "run"
        rows.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
        early = run_job("preferences", elsewhere, f"preferences.train={rows}", expect=2)
        assert refused(early) == f"error: preferences.train={rows} is not there on NODE"
        assert not (elsewhere / "preferences").exists()


def test_a_node_that_joins_later_does_not_train(
    prepared: Path, overrides: tuple[str, ...], busy_head: Head, folder: Path, tmp_path: Path
) -> None:
    root = copy_run(prepared, folder / "training")
    with waiting("dpo", root, *overrides, log=tmp_path) as end, stranger(busy_head, folder, tmp_path):
        assert end() == f"error: {root}/dpo is not there on NODE"
