"""A machine whose runs lie in a bucket: moto's S3 server on loopback, and jobs that know it from their environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from tests import s3_server
from tests.integration.cluster import REPO, free_port
from tests.integration.jobs import LIBRARIES, started_fork_server
from zephyr_ray.cluster import fork_server
from zephyr_ray.pipeline.artifacts import Run

ROOT = "s3://bucket/run"
KEY, SECRET = "a-key-of-the-tests", "a-secret-of-the-tests"


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
            "VLLM_CACHE_ROOT": os.path.expanduser("~/.cache/vllm"),  # what it finds out of models' classes, once
        }

    def start(self, script: str, *arguments: str, log: Path | None = None, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(REPO / script), *arguments]
        out = log.open("w") if log else subprocess.PIPE
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            command, cwd=self.place / "cwd", env=environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )

    def run(self, script: str, *arguments: str, expect: int = 0, timeout: float = 600, **variables: str) -> str:
        process = self.start(script, *arguments, log=None, **variables)
        seen, _ = process.communicate(timeout=timeout)
        assert process.returncode == expect, seen + self.last_log()
        return seen

    def last_log(self) -> str:
        logs = sorted((self.place / "cache" / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text(errors="replace")[-6000:] if logs else ""


def variables() -> dict[str, str]:
    """The environment that names the server of the bucket, before it runs: then all workers can be forked from one
    process, whether or not a test of theirs has started it.
    """
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def settings(root: str, *overrides: str) -> list[str]:
    given = [part for override in (f"run.root={root}", *overrides) for part in ("--set", override)]
    return ["--recipe", str(REPO / "recipes" / "tiny.yaml"), *given]


@contextmanager
def machine_beside_a_bucket() -> Iterator[Machine]:
    """A machine beside an S3 server with one bucket, which this process's own environment names (`variables`)."""
    url = os.environ["AWS_ENDPOINT_URL"]
    with tempfile.TemporaryDirectory(prefix="s3-", dir="/tmp") as short:  # sockets lie in it: names of 107 characters
        place = Path(short)
        with s3_server.started(url, place / "moto.log"):
            urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=10)
            machine = Machine(place, url)
            with started_fork_server(machine.environment, LIBRARIES) as socket:
                machine.environment[fork_server.VARIABLE] = socket
                yield machine


def names(path: str = "bucket/run") -> list[str]:
    """The objects below a path of the store."""
    found = Run(ROOT).filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    return sorted(info.path.removeprefix(f"{path}/") for info in found if info.type == pafs.FileType.File)


def texts() -> list[str]:
    """The run's small text files."""
    kinds = (".json", ".jsonl", ".yaml", ".md", ".html")
    return [read(f"run/{name}") for name in names() if name.endswith(kinds) and "tokenizer" not in name]


def left_behind(machine: Machine) -> list[str]:
    """Files of a run on the machine's own disk, outside of its cache and of the killed worker's scratch."""
    kinds = re.compile(r"manifest\.json|recipe\.yaml|\.(parquet|safetensors|jsonl|html)$|tfevents|/checkpoint")
    places = [machine.place / name for name in ("home", "tmp", "cwd")]
    found = [str(path) for place in places for path in place.rglob("*") if path.is_file()]
    return [path for path in found if kinds.search(path) and not re.search("/ray/session_|/tmp/zephyr-ray-dpo-", path)]


def read(path: str) -> str:
    with Run(ROOT).filesystem.open_input_stream(f"bucket/{path}") as stream:
        return stream.read().decode()


def post(url: str, body: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
