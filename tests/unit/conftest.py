"""A bucket of moto's S3 server on loopback, and its URI."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from pyarrow.fs import FileSystem

from tests import s3_server as server
from zephyr_ray.cluster.ports import free_port


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    with server.started(url, tmp_path_factory.mktemp("moto") / "log"):
        yield url


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new folder in a bucket; the environment names its server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, os.environ.get(name, "us-east-1"))
    filesystem, path = FileSystem.from_uri("s3://bucket-of-units?allow_bucket_creation=true")
    filesystem.create_dir(path)
    return f"s3://bucket-of-units/{secrets.token_hex(4)}"
