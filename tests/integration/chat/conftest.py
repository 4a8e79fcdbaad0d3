"""The endpoint, once for all of these tests; it ends with them, for its engines hold gigabytes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.cluster import REPO, free_port, head
from tests.integration.jobs import started_fork_server
from tests.integration.service import KEY, REPLICA_PORTS, Service, describe, make_run
from zephyr_ray.cluster import preload
from zephyr_ray.cluster.connect import FAST_PATH

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

LOADED = (preload.SERVING.libraries, preload.SERVING.on_ray)


@pytest.fixture(scope="package")
def chat_service(tmp_path_factory: pytest.TempPathFactory, base_model: Path, adapter: Path) -> Iterator[Service]:
    """The endpoint over the model `tiny` and its adapter `tiny-lora`, with an API key, on a cluster of its own."""
    folder = tmp_path_factory.mktemp("service")
    run = make_run(folder / "run", base_model)
    variables = {**FAST_PATH, "ZEPHYR_API_KEYS": KEY, "PYTHONPATH": str(REPO), "VLLM_NO_USAGE_STATS": "1"}
    variables["OMP_NUM_THREADS"] = "1"  # replicas that start while others answer get their share
    variables["RAY_metrics_report_interval_ms"] = "1000"
    variables["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "5"  # of 30: HAProxy is on this machine
    first, last = REPLICA_PORTS  # not Ray Serve's own: another lane's endpoint has those
    variables |= {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last),
    }
    for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
        variables[name] = str(free_port())
    with head(folder, variables) as started, started_fork_server(started.environment, *LOADED) as socket:
        service = describe(started, folder, run, {"tiny-lora": str(adapter)})
        service.fork_server = socket
        service.deploy()
        yield service


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def chat_page_url(served_by_command: tuple[str, Path]) -> str:
    return served_by_command[0] + "/"


@pytest.fixture(scope="package")
def feedback_rows(served_by_command: tuple[str, Path]) -> Callable[[], list[dict[str, Any]]]:
    """The rows that the endpoint stored so far, in the order in which they came."""
    folder = served_by_command[1] / "feedback"

    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]

    return rows


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its module: while it runs, Playwright's event loop is this thread's, and `asyncio.run` refuses."""
    from tests.integration.chat.browser import launched

    with launched() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser, chat_page_url: str) -> Iterator[BrowserContext]:
    from tests.integration.chat.browser import profile

    with profile(browser, chat_page_url) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, chat_page_url: str) -> Page:
    """The page, loaded, with short answers that are the same in every run."""
    from tests.integration.chat.browser import opened

    return opened(context, chat_page_url)
