"""A bucket of moto's S3 server on loopback, and its URI."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSystem


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new folder in a bucket; the environment names its server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, os.environ.get(name, "us-east-1"))
    filesystem, path = FileSystem.from_uri("s3://bucket-of-units?allow_bucket_creation=true")
    filesystem.create_dir(path)
    return f"s3://bucket-of-units/{secrets.token_hex(4)}"
