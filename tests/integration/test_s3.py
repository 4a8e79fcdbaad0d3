"""A run in a bucket: moto's S3 server on loopback, and jobs and endpoint that know nothing of it but the environment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from tests.integration.cluster import REPO, free_port
from zephyr_ray.artifacts import Run
from zephyr_ray.chat_template import Message

pytestmark = pytest.mark.timeout(900)

ROOT = "s3://bucket/run"
KEY, SECRET = "a-key-of-the-tests", "a-secret-of-the-tests"
STAGES = "base dialogues tokenized_dialogues sft prompts candidates judgments preferences tokenized reference_logps dpo held_out"
SMALL = (
    "tiny.hidden_size=64",
    "tiny.layers=2",
    "tiny.dialogues=64",
    "tiny.preference_prompts=48",
    "tiny.held_out_prompts=8",
    "sft.max_steps=2",
    "sft.training.workers=1",
    "sampling.samples=3",
    "sampling.max_tokens=12",
    "judging.function=tests.integration.judges:length",
    "preferences.max_dropped=0.9",
    "dpo.global_batch=8",
    "dpo.max_steps=8",
    "dpo.training.workers=1",
    "dpo.training.zero_stage=0",
    "dpo.training.micro_batch=8",
    "dpo.training.checkpoint_steps=2",
    "held_out.samples=1",
    "held_out.max_new_tokens=4",
    "held_out.workers=1",
)


class Machine:
    """An empty home, cache, temporary folder and working directory, and the environment that has the bucket in it."""

    def __init__(self, place: Path, url: str):
        self.place, self.url = place, url
        for name in ("home", "cache", "tmp", "cwd"):
            (place / name).mkdir()
        self.environment = {
            **os.environ,
            "HOME": str(place / "home"),
            "ZEPHYR_RAY_CACHE": str(place / "cache"),
            "TMPDIR": str(place / "tmp"),
            "PYTHONPATH": str(REPO),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self, script: str, *arguments: str, log: Path | None = None, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(REPO / script), *arguments]
        out = log.open("w") if log else subprocess.PIPE
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            command, cwd=self.place / "cwd", env=environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )

    def run(self, script: str, *arguments: str, expect: int = 0, **variables: str) -> str:
        process = self.start(script, *arguments, **variables)
        seen, _ = process.communicate(timeout=600)
        assert process.returncode == expect, seen + self.last_log()
        return seen

    def last_log(self) -> str:
        logs = sorted((self.place / "cache" / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text(errors="replace")[-6000:] if logs else ""


def settings(root: str, *overrides: str) -> list[str]:
    given = [part for override in (f"run.root={root}", *overrides) for part in ("--set", override)]
    return ["--recipe", str(REPO / "recipes" / "tiny.yaml"), *given]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine beside an S3 server with one bucket."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="s3-", dir="/tmp") as short:  # sockets lie in it: names of 107 characters
        place, url = Path(short), f"http://127.0.0.1:{port}"
        with (place / "moto.log").open("w") as log:
            command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
            server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(lambda: _answers(url), server, place / "moto.log", 60)
            urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=10)
            yield Machine(place, url)
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture
def here(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine's bucket in this process's own environment."""
    for name, value in machine.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return machine


def test_the_whole_way_in_a_bucket_killed_in_mid_training(here: Machine) -> None:
    way = settings(ROOT, *SMALL)
    killed = here.start("jobs/pipeline.py", *way, log=here.place / "killed.log")
    output = Run(ROOT).artifact("dpo")
    snapshot = "training_state/checkpoint_manager_snapshot.json"
    _wait(lambda: output.read_json(snapshot) is not None, killed, here.place / "killed.log", 500)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    assert output.manifest() is None
    assert [name for name in names() if name.startswith("dpo/tensorboard/")]

    seen = here.run("jobs/pipeline.py", *way)
    assert re.search(r"^dpo +resuming$", seen, re.MULTILINE)
    assert _done(seen) == STAGES.split()[:-2]
    assert _done(here.run("jobs/pipeline.py", *way)) == STAGES.split()

    for stage in STAGES.split():
        manifest = Run(ROOT).artifact(stage).manifest()
        assert manifest is not None
        assert set(manifest["files"]) <= {name.removeprefix(f"{stage}/") for name in names()}
    assert not [name for name in names() if "unfinished" in name or "training_state" in name or "/replies/" in name]
    assert {"recipe.yaml", "preferences/report.html", "dpo/checkpoint/model.safetensors"} <= set(names())
    steps = [json.loads(line) for line in _read("run/dpo/metrics.jsonl").splitlines()]
    assert sum("loss" in row for row in steps) >= 1
    assert left_behind(here) == []
    assert [text for text in texts() if KEY in text or SECRET in text or str(here.place) in text] == []
