"""Requests that nobody thought of, made from the endpoint's own OpenAPI document, and some that somebody did.

Whatever comes, the endpoint answers with a status that it documents, never with a failure of its own, and an error has
OpenAI's shape.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET

from zephyr_ray.serving.gateway.openapi import ERROR

OPERATIONS = [
    ("GET", "/health"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/models/{name}/lineage"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/feedback"),
]
POSTS = [path for method, path in OPERATIONS if method == "POST"]
JSON = {"content-type": "application/json"}
BOUNDED = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a failure is shown as it was found: each try costs the engine's time
    suppress_health_check=list(HealthCheck),
)


class Service(Protocol):
    url: str
    key: str


@pytest.fixture(scope="module")
def client(chat_service: Service) -> Any:
    headers = {"authorization": f"Bearer {chat_service.key}"} if chat_service.key else {}
    with httpx.Client(base_url=chat_service.url, headers=headers, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Any:
    return client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def model(client: httpx.Client) -> str:
    return client.get("/v1/models").json()["data"][0]["id"]


def check(answer: httpx.Response, documented: set[int]) -> None:
    seen = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code in documented, seen
    assert answer.status_code < 500, seen
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert answer.headers["content-type"] == "application/json", seen
        jsonschema.validate(answer.json(), ERROR)
    assert "content-security-policy" in answer.headers, seen


def statuses(document: Any, method: str, path: str) -> set[int]:
    return {int(status) for status in document["paths"][path][method.lower()]["responses"]}


def test_every_operation_is_tried(document: Any) -> None:
    found = [(method.upper(), path) for path, routes in document["paths"].items() for method in routes]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_generated_requests(
    client: httpx.Client, document: Any, model: str, method: str, path: str, mode: GenerationMode
) -> None:
    if mode is GenerationMode.NEGATIVE and method == "GET":
        pytest.skip("nothing in it can be wrong")
    operation = schemathesis.openapi.from_dict(document)[path][method]

    @BOUNDED
    @given(operation.as_strategy(mode))
    def ask(case: Any) -> None:
        request = httpx.Request(method, client.base_url.join(case.formatted_path), headers=client.headers)
        if method == "POST":
            body = case.body
            if isinstance(body, dict) and "model" in body and mode is GenerationMode.POSITIVE:
                short = {name: value for name, value in body.items() if not name.endswith("_tokens")}
                body = short | {"model": model, "max_tokens": 2, "n": 1}  # to the engine, and soon back
            content = body if isinstance(body, bytes) else b"" if body is NOT_SET else json.dumps(body).encode()
            request = client.build_request(method, path, content=content, headers=JSON)
        check(client.send(request), statuses(document, method, path))

    ask()


RAW = {
    "empty": b"",
    "space": b" \n",
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "an empty object": b"{}",
    "cut off": b'{"model": "tiny", "messages": [',
    "two values": b"{}{}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"model": "tiny"}'.encode("utf-16"),
    "no UTF-8": b'{"model": "\xff\xfe"}',
    "an overlong slash": b'{"model": "\xc0\xaf"}',
    "half a surrogate pair": b'{"model": "\\ud800"}',
    "half a pair as a key": b'{"\\udc00": 1}',
    "NUL": b'{"model": "\\u0000"}',
    "NUL outside a string": b"{\x00}",
    "NaN": b'{"temperature": NaN}',
    "Infinity": b'{"temperature": -Infinity}',
    "a float that is infinite": b'{"temperature": 1e999}',
    "a huge integer": b'{"seed": ' + b"9" * 4000 + b"}",
    "an integer over Python's limit": b'{"seed": ' + b"9" * 5000 + b"}",
    "the same key twice": b'{"model": "a", "model": "b"}',
    "deep lists": b"[" * 100_000,
    "deep and closed": b"[" * 5000 + b"]" * 5000,
    "deep objects": b'{"a":' * 50_000,
    "a deep schema": b'{"response_format": ' + b'{"a":' * 200 + b"1" + b"}" * 201,
    "many wrong messages": b'{"messages": [' + b"1," * 100_000 + b"1]}",
    "many unknown fields": b"{" + b",".join(b'"f%d":1' % number for number in range(20_000)) + b"}",
    "a long name of a field": b'{"' + b"x" * 100_000 + b'": 1}',
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", RAW)
def test_bodies_that_are_no_request(client: httpx.Client, document: Any, path: str, name: str) -> None:
    answer = client.post(path, content=RAW[name], headers=JSON)
    check(answer, statuses(document, "POST", path))
    assert answer.status_code == 400 or (path, answer.status_code) == ("/feedback", 404)
    assert len(answer.content) < 2000  # what was sent does not come back


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x" * 5000]
)
def test_other_kinds_of_bodies(client: httpx.Client, document: Any, path: str, kind: str) -> None:
    answer = client.post(path, content=b"{}", headers={"content-type": kind})
    check(answer, statuses(document, "POST", path))
    assert answer.status_code == 415 or (path, answer.status_code) == ("/feedback", 404)


@pytest.mark.parametrize("path", [path.replace("{name}", "x") for _, path in OPERATIONS] + ["/", "/nowhere", "/static"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "GET", "POST"])
def test_other_methods(client: httpx.Client, path: str, method: str) -> None:
    meant = [("GET", "/v1/models/x"), ("GET", "/v1/models/x/lineage"), ("GET", "/"), ("HEAD", "/")]
    if (method, path) in [*OPERATIONS, *meant]:
        pytest.skip("this one is meant")
    check(client.request(method, path), {404, 405})


@pytest.mark.parametrize(
    "path",
    ["/%00", "/%ff", "/static/%00", "/static/..%2f..%2fapp.py", "/static/%2e%2e/app.py", "/v1/", "/" + "a" * 5000],
)
def test_other_paths(client: httpx.Client, path: str) -> None:
    check(client.get(path), {404, 405})
    check(client.get("/v1/models" + path), {404})
