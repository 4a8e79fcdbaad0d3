"""Errors in OpenAI's shape, whole or as the end of a stream."""

from __future__ import annotations

import json

import pytest

from zephyr_ray.serving.gateway.errors import ApiError, error_body, error_event


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (408, "timeout_error"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (503, "server_error"),
    ],
)
def test_a_status_has_openais_type(status: int, kind: str) -> None:
    error = {"message": "m", "type": kind, "param": "n", "code": "c"}
    assert json.loads(error_body(status, "m", "n", "c")) == {"error": error}


def test_an_error_of_the_api_is_its_own_body() -> None:
    error = ApiError(429, "slowly", headers={"retry-after": "7"})
    body = {"message": "slowly", "type": "rate_limit_error", "param": None, "code": None}
    assert json.loads(error.body()) == {"error": body}
    assert (str(error), error.headers) == ("slowly", {"retry-after": "7"})


def test_an_error_event_is_one_event_and_the_end_whatever_the_message_holds() -> None:
    events = error_event("two\n\nlines\u2028", "lost").split(b"\n\n")
    assert events[1:] == [b"data: [DONE]", b""]
    error = json.loads(events[0].removeprefix(b"data: "))["error"]
    assert (error["message"], error["code"], error["type"]) == ("two\n\nlines\u2028", "lost", "server_error")
