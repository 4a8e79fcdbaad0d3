"""Counters and the access log of requests, however they end."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from zephyr_ray.serving.gateway.telemetry import Telemetry


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The access log so far, parsed; each entry is one line of ASCII."""
    logger = logging.getLogger("ray.serve")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="ray.serve")

    def read() -> list[dict[str, Any]]:
        messages = [record.getMessage() for record in caplog.records if record.name == "ray.serve"]
        assert all(message.isascii() and len(message.splitlines()) == 1 for message in messages)
        return [json.loads(message)["access"] for message in messages]

    return read


def test_one_line_for_each_request_however_often_it_ends(lines: Any) -> None:
    request = Telemetry().begin("/v1/completions", "r1")
    request.key, request.model = "alice", "tiny"
    request.usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    request.end(200)
    request.end(499, "client_gone")
    (line,) = lines()
    assert line.pop("seconds") >= 0
    assert len(line.pop("time")) == len("2020-01-01T00:00:00Z")
    assert line == {
        "request_id": "r1",
        "key": "alice",
        "route": "/v1/completions",
        "model": "tiny",
        "status": 200,
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }


def test_a_streams_events_are_counted_however_they_come(lines: Any) -> None:
    request = Telemetry().begin("/v1/completions", "r1")
    for chunk in (b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n"):
        request.saw(chunk)
    request.end(200, "broken_stream")
    (line,) = lines()
    assert (line["events"], line["error"]) == (3, "broken_stream")
    assert 0 <= line["first_token_seconds"] <= line["seconds"] + 1e-4


def test_no_text_can_begin_a_line_of_its_own(lines: Any) -> None:
    request = Telemetry().begin("/v1/completions", "r\n1")
    request.key = "a\u2028b\x85"
    request.text = 'x\r\n{"access": {}}\u2029\x1b[2Jé'
    request.end(200)
    (line,) = lines()
    assert (line["key"], line["request_id"], line["body"]) == ("a\u2028b\x85", "r\n1", request.text)


def test_the_requests_in_progress_are_those_that_began_and_did_not_end() -> None:
    telemetry = Telemetry()
    first, second = (telemetry.begin("/", name) for name in ("r1", "r2"))
    assert telemetry._count == 2
    for request in (first, first, second):
        request.end(200)
    assert telemetry._count == 0
