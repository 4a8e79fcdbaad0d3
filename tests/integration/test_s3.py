"""A run in a bucket: what serves from it, what is refused, and who cannot reach it. (test_pipeline fills one.)"""

from __future__ import annotations

import re
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from tests.integration.bucket import Machine, left_behind, names, post, settings
from tests.integration.cluster import free_port, head, node
from tests.s3_server import wait
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.fingerprints import fingerprint_files

pytestmark = pytest.mark.timeout(900)

SERVED = "s3://bucket/served"


@pytest.fixture(scope="module")
def run_in_bucket(here: Machine, base_model: Path) -> str:
    """A run whose `dpo` stage is finished, in the bucket."""
    artifact = Run(SERVED).artifact("dpo")
    fingerprint = fingerprint_files([str(base_model)])
    artifact.begin(fingerprint)
    pafs.copy_files(str(base_model), f"{artifact.path}/checkpoint", destination_filesystem=artifact.run.filesystem)
    artifact.finish({"stage": "dpo", "fingerprint": fingerprint, "files": []})
    return SERVED


def test_the_endpoint_serves_from_the_bucket_and_keeps_feedback_in_it(here: Machine, run_in_bucket: str) -> None:
    port = free_port()
    log = here.place / "serve.log"
    server = here.start(
        "serve/app.py", "--run", run_in_bucket, "--open", "--port", str(port), "--max-model-len", "192", log=log
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: "OpenAI API" in log.read_text(), server, log, 300)
        question = [{"role": "user", "content": "Say one word."}]
        body = {"model": "served", "messages": question, "max_tokens": 4}
        answer = post(f"{url}/v1/chat/completions", body)["choices"][0]["message"]["content"]
        choice = {
            "id": str(uuid.UUID(int=1)),
            "kind": "compare",
            "messages": question,
            "answers": [{"model": "served", "content": answer}, {"model": "served", "content": f"not {answer}"}],
            "choice": 1,
        }
        assert [post(f"{url}/feedback", choice)["stored"] for _ in range(2)] == [True, False]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
    assert [name for name in names("bucket/served") if name.startswith("feedback/")] == [
        f"feedback/{uuid.UUID(int=1)}.jsonl"
    ]
    assert left_behind(here) == []

    second = "s3://bucket/second"
    here.run("jobs/preferences.py", *settings(second, f"preferences.train={SERVED}/feedback"))
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
        ("serve", ["--run", SERVED, "--open"]),
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
    line = one_line(here, "dpo", settings(SERVED), AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert line.startswith(f"error: {SERVED}: http://127.0.0.1:9 does not answer (")


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
        post(set_auth, b"0")
        yield
    finally:
        post(set_auth, b"inf")
