"""A run in a bucket: moto's S3 server on loopback, and jobs and endpoint that know it from their environment."""

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
import pyarrow.parquet as pq
import pytest

from tests.integration.cluster import REPO, free_port, head, node
from zephyr_ray.artifacts import Run

pytestmark = pytest.mark.timeout(900)

ROOT = "s3://bucket/run"
KEY, SECRET = "a-key-of-the-tests", "a-secret-of-the-tests"
STAGES = ("base", "dialogues", "tokenized_dialogues", "sft", "prompts", "candidates", "judgments", "preferences")
STAGES += ("tokenized", "reference_logps", "dpo", "held_out")
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

    def run(self, script: str, *arguments: str, expect: int = 0, timeout: float = 600, **variables: str) -> str:
        process = self.start(script, *arguments, **variables)
        seen, _ = process.communicate(timeout=timeout)
        assert process.returncode == expect, seen + self.last_log()
        return seen

    def last_log(self) -> str:
        logs = sorted((self.place / "cache" / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text(errors="replace")[-6000:] if logs else ""


def settings(root: str, *overrides: str) -> list[str]:
    given = [part for override in (f"run.root={root}", *overrides) for part in ("--set", override)]
    return ["--recipe", str(REPO / "recipes" / "tiny.yaml"), *given]


@pytest.fixture(scope="module")
def here() -> Iterator[Machine]:
    """A machine beside an S3 server with one bucket, which this process's own environment names too."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="s3-", dir="/tmp") as short:  # sockets lie in it: names of 107 characters
        place, url = Path(short), f"http://127.0.0.1:{port}"
        with (place / "moto.log").open("w") as log:
            command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
            server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(lambda: _answers(url), server, place / "moto.log", 60)
            urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=10)
            machine = Machine(place, url)
            with pytest.MonkeyPatch.context() as patch:
                for name, value in machine.environment.items():
                    if name.startswith("AWS_"):
                        patch.setenv(name, value)
                yield machine
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def whole(here: Machine) -> list[str]:
    """The whole way into the bucket, the driver killed in mid-training, and run twice more; what the two said."""
    way = settings(ROOT, *SMALL)
    killed = here.start("jobs/pipeline.py", *way, log=here.place / "killed.log")
    output = Run(ROOT).artifact("dpo")
    snapshot = "training_state/checkpoint_manager_snapshot.json"
    _wait(lambda: output.read_json(snapshot) is not None, killed, here.place / "killed.log", 500)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    assert output.manifest() is None
    assert [name for name in names() if name.startswith("dpo/tensorboard/")]
    return [here.run("jobs/pipeline.py", *way) for _ in range(2)]


def test_the_whole_way_in_a_bucket_killed_in_mid_training(here: Machine, whole: list[str]) -> None:
    resumed, again = whole
    assert re.search(r"^dpo +resuming$", resumed, re.MULTILINE)
    assert _done(resumed) == list(STAGES[:-2])
    assert _done(again) == list(STAGES)

    for stage in STAGES:
        manifest = Run(ROOT).artifact(stage).manifest()
        assert manifest is not None
        assert set(manifest["files"]) <= {name.removeprefix(f"{stage}/") for name in names()}
    assert not [name for name in names() if "unfinished" in name or "training_state" in name]
    (replies,) = [name for name in names() if "/replies/" in name]
    assert re.fullmatch(r"candidates/replies/\w+\.jsonl\.zst", replies)
    assert {"recipe.yaml", "preferences/report.html", "dpo/checkpoint/model.safetensors"} <= set(names())
    steps = [json.loads(line) for line in _read("run/dpo/metrics.jsonl").splitlines()]
    assert sum("loss" in row for row in steps) >= 1
    assert left_behind(here) == []
    assert len(list((here.place / "tmp").glob("zephyr-ray-*"))) <= 1  # the killed worker's; all others are gone
    assert [text for text in texts() if KEY in text or SECRET in text or str(here.place) in text] == []


@pytest.mark.usefixtures("whole")
def test_the_endpoint_serves_from_the_bucket_and_keeps_feedback_in_it(here: Machine) -> None:
    port = free_port()
    log = here.place / "serve.log"
    server = here.start("serve/app.py", "--run", ROOT, "--open", "--port", str(port), "--max-model-len", "192", log=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: "OpenAI API" in log.read_text(), server, log, 300)
        question = [{"role": "user", "content": "Say one word."}]
        body = {"model": "run", "messages": question, "max_tokens": 4}
        answer = _post(f"{url}/v1/chat/completions", body)["choices"][0]["message"]["content"]
        choice = {
            "id": str(uuid.UUID(int=1)),
            "kind": "compare",
            "messages": question,
            "answers": [{"model": "run", "content": answer}, {"model": "run", "content": f"not {answer}"}],
            "choice": 1,
        }
        assert [_post(f"{url}/feedback", choice)["stored"] for _ in range(2)] == [True, False]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
    assert [name for name in names() if name.startswith("feedback/")] == [f"feedback/{uuid.UUID(int=1)}.jsonl"]
    assert left_behind(here) == []

    second = "s3://bucket/second"
    here.run("jobs/preferences.py", *settings(second, f"preferences.train={ROOT}/feedback"))
    (row,) = Run(second).artifact("preferences").files()
    (pair,) = pq.read_table(row, filesystem=Run(second).filesystem).to_pylist()
    assert (pair["chosen"][0]["content"], pair["prompt"]) == (f"not {answer}", question)


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("dpo", settings("s3://nowhere/run"), "s3://nowhere/run: there is no bucket nowhere at http://127.0.0.1:"),
        ("dpo", settings("s3://a:b@bucket/run"), "s3://***@bucket/run: credentials do not belong in a URI"),
        ("dpo", settings("s3://bucket/run?scheme=http"), "s3://bucket/run?...: a URI takes no options"),
        (
            "dpo",
            settings("s3://bucket/x", "model.path=s3://bucket/none"),
            "model.path=s3://bucket/none holds no config",
        ),
        ("dpo", settings("s3://bucket/x", "preferences.train=s3://nowhere/a"), "s3://nowhere/a: there is no bucket"),
        ("dpo", settings("s3://bucket/x", "preferences.train=s3://bucket/a"), "s3://bucket/a is not there"),
        ("serve", ["--run", "s3://nowhere/run", "--open"], "s3://nowhere/run: there is no bucket nowhere"),
        ("serve", ["--run", "s3://bucket/none", "--open"], "s3://bucket/none has no finished checkpoint"),
    ],
)
def test_what_is_not_there_is_one_line(here: Machine, script: str, arguments: list[str], says: str) -> None:
    before = names("bucket")
    assert one_line(here, script, arguments).startswith(f"error: {says}")
    assert names("bucket") == before


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("dpo", settings("s3://bucket/x")),
        ("dpo", [*settings("s3://bucket/x"), "--dry-run"]),
        ("preferences", settings("LOCAL", "preferences.train=s3://bucket/rows")),
        ("serve", ["--run", ROOT, "--open"]),
    ],
)
def test_a_bucket_that_refuses_is_one_line(here: Machine, script: str, arguments: list[str]) -> None:
    arguments = [each.replace("LOCAL", str(here.place / "cwd" / "run")) for each in arguments]
    with refusing(here):
        line = one_line(here, script, arguments)
    assert re.match(
        r"error: s3://bucket/\w+: access is refused \(\w+\); check the credentials in the environment", line
    )
    assert not list((here.place / "cwd").iterdir())


def test_a_store_that_does_not_answer_is_one_line(here: Machine) -> None:
    line = one_line(here, "dpo", settings(ROOT), AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert line.startswith(f"error: {ROOT}: http://127.0.0.1:9 does not answer (")


def test_a_node_that_cannot_reach_the_bucket_is_named(here: Machine, tmp_path: Path) -> None:
    within = ("env", "AWS_ENDPOINT_URL=http://127.0.0.1:9")
    with head(tmp_path, here.environment, cpus=1) as started, node(started, tmp_path, 1, within):
        variables = {**started.environment, "RAY_ADDRESS": started.gcs}
        seen = here.run("jobs/preferences.py", *settings("s3://bucket/x"), expect=2, timeout=120, **variables)
    (line,) = [line for line in seen.splitlines() if line.startswith("error: ")]
    assert re.match(r"error: on node [\d.]+ \(\w+\): s3://bucket/x: http://127\.0\.0\.1:9 does not answer", line)


def one_line(machine: Machine, script: str, arguments: list[str], **variables: str) -> str:
    """What is said of input that is refused within 30 s, before any work."""
    path = "serve/app.py" if script == "serve" else f"jobs/{script}.py"
    seen = machine.run(path, *arguments, expect=2, timeout=30, **variables)
    assert "Traceback" not in seen
    (line,) = seen.splitlines()
    return line


@contextmanager
def refusing(machine: Machine) -> Iterator[None]:
    """The server knows nobody's key meanwhile."""
    set_auth = f"{machine.url}/moto-api/reset-auth"
    try:
        _post(set_auth, b"0")
        yield
    finally:
        _post(set_auth, b"inf")


def names(path: str = "bucket/run") -> list[str]:
    """The objects below a path of the store."""
    found = Run(ROOT).filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    return sorted(info.path.removeprefix(f"{path}/") for info in found if info.type == pafs.FileType.File)


def texts() -> list[str]:
    """The run's small text files."""
    kinds = (".json", ".jsonl", ".yaml", ".md", ".html")
    return [_read(f"run/{name}") for name in names() if name.endswith(kinds) and "tokenizer" not in name]


def left_behind(machine: Machine) -> list[str]:
    """Files of a run on the machine's own disk, outside of its cache and of the killed worker's scratch."""
    kinds = re.compile(r"manifest\.json|recipe\.yaml|\.(parquet|safetensors|jsonl|html)$|tfevents|/checkpoint")
    places = [machine.place / name for name in ("home", "tmp", "cwd")]
    found = [str(path) for place in places for path in place.rglob("*") if path.is_file()]
    return [path for path in found if kinds.search(path) and not re.search("/ray/session_|/tmp/zephyr-ray-dpo-", path)]


def _read(path: str) -> str:
    with Run(ROOT).filesystem.open_input_stream(f"bucket/{path}") as stream:
        return stream.read().decode()


def _done(seen: str) -> list[str]:
    return [line.split()[0] for line in seen.splitlines() if line.endswith("already done")]


def _post(url: str, body: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _wait(holds: Callable[[], bool], process: subprocess.Popen[Any], log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, log.read_text()[-6000:]
        assert time.monotonic() < deadline, log.read_text()[-6000:]
        time.sleep(0.1)
