"""The gateway before a false proxy: routes, keys, limits, errors, headers and the access log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ReplicaState

from tests.unit.serving.gateway.standin import QUESTION, StandInProxy, make_gateway
from zephyr_ray.serving import keys
from zephyr_ray.serving.gateway import app as gateways
from zephyr_ray.serving.gateway.app import STATIC, Gateway, build_app
from zephyr_ray.serving.gateway.errors import ApiError
from zephyr_ray.serving.gateway.settings import GatewaySettings
from zephyr_ray.serving.keys import add
from zephyr_ray.serving.open_length import BOUND

CHAT = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": QUESTION}
LINEAGE = "/v1/models/tiny/lineage"
DESCRIBE = Gateway._describe
SECURITY = ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy")


class Client:
    """Asks the application of a gateway, without a server."""

    def __init__(self, gateway: Gateway, proxy: StandInProxy):
        self.gateway, self.proxy = gateway, proxy
        self._app = build_app(gateway)

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())

    def chat(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return self("POST", CHAT, json={**BODY, **fields}, headers=headers)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Client]:
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    return lambda **settings: Client(*make_gateway(monkeypatch, **settings))


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    logger = logging.getLogger("ray.serve")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="ray.serve")
    return lambda: [json.loads(r.getMessage())["access"] for r in caplog.records if '{"access"' in r.getMessage()]


def is_error(answer: httpx.Response, status: int, param: str | None = None) -> bool:
    """Whether an answer is an error in OpenAI's shape, with the security headers on it."""
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert all(name in answer.headers for name in SECURITY)
    return (answer.status_code, error["param"]) == (status, param)


# --- answers


def test_a_chat_request_reaches_its_application(client: Client) -> None:
    answer = client.chat(headers={"x-request-id": "mine-1"})
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Yes"
    (asked,) = client.proxy.asked
    assert (asked["model"], asked["path"]) == ("tiny", CHAT)
    assert asked["body"] == {**BODY, "max_tokens": 1, "vllm_xargs": {BOUND: 4096}}
    assert asked["headers"] == {"content-type": "application/json", "x-request-id": "mine-1"}


def test_an_adapter_goes_to_the_application_of_its_model(client: Client) -> None:
    assert client.chat(model="tiny-lora").status_code == 200
    assert (client.proxy.asked[0]["model"], client.proxy.asked[0]["body"]["model"]) == ("tiny", "tiny-lora")


def test_a_stream_is_passed_on(client: Client) -> None:
    answer = client.chat(stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text.endswith('"Yes"}}]}\n\ndata: [DONE]\n\n')
    assert all(name in answer.headers for name in SECURITY)


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({}, {"max_tokens": 1, "vllm_xargs": {BOUND: 100}}),
        ({"min_tokens": 70}, {"max_tokens": 70, "vllm_xargs": {BOUND: 100}}),
        ({"max_tokens": None}, {"max_tokens": 1, "vllm_xargs": {BOUND: 100}}),
        ({"max_tokens": 3}, {"max_tokens": 3}),
        ({"max_completion_tokens": 3}, {"max_completion_tokens": 3}),
    ],
)
def test_the_length_is_left_open_where_the_client_names_none(make: Any, fields: dict[str, Any], length: Any) -> None:
    client = make(limits={"max_tokens": 100})
    assert client.chat(**fields).status_code == 200
    assert client.proxy.asked[0]["body"] == {**BODY, **fields, **length}


def test_models_and_adapters_are_listed(client: Client) -> None:
    first, second = client("GET", "/v1/models").json()["data"]
    assert (first["id"], first["root"], first["parent"], first["fingerprint"]) == ("tiny", "tiny", None, "of-tiny")
    assert (second["id"], second["root"], second["parent"]) == ("tiny-lora", "tiny", "tiny")
    assert client("GET", "/v1/models/tiny-lora").json() == second
    assert is_error(client("GET", "/v1/models/other"), 404, "model")


def test_the_page_and_the_health_are_there(client: Client) -> None:
    assert client("GET", "/health").json() == {"status": "ok"}
    page = client("GET", "/")
    assert (page.status_code, page.text) == (200, (STATIC / "index.html").read_text("utf-8"))
    assert client("GET", "/static/index.html").text == page.text


def test_feedback_is_stored_once(make: Any, tmp_path: Path) -> None:
    client = make(feedback=str(tmp_path))
    answers = [{"model": "tiny", "content": "Yes"}, {"model": "tiny", "content": "No"}]
    body = {"id": "0" * 32, "kind": "compare", "messages": QUESTION, "answers": answers, "choice": 0}
    answered = [client("POST", "/feedback", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answered] == [201, 201]
    assert [answer.json()["stored"] for answer in answered] == [True, False]
    (file,) = tmp_path.glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 1
    assert is_error(client("POST", "/feedback", json={**body, "choice": 3}), 400, "choice")


def test_feedback_that_cannot_be_written_is_503_and_a_line_in_the_log(
    make: Any, tmp_path: Path, log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "feedback").write_text("a file where the folder should be")
    client = make(feedback=str(tmp_path / "feedback"))
    answers = [{"model": "tiny", "content": "Yes"}, {"model": "tiny", "content": "No"}]
    body = {"id": "0" * 32, "kind": "compare", "messages": QUESTION, "answers": answers, "choice": 0}
    answer = client("POST", "/feedback", json=body)
    assert is_error(answer, 503)
    assert str(tmp_path) not in answer.text
    assert {record.levelname for record in caplog.records if str(tmp_path) in record.getMessage()} == {"ERROR"}
    (tmp_path / "feedback").unlink()  # and the choice is kept once it can be
    assert client("POST", "/feedback", json=body).json()["stored"] is True


# --- who may ask, and how much


def test_every_data_route_asks_for_a_key(make: Any, tmp_path: Path) -> None:
    key = add(str(tmp_path / "keys"), "alice")
    client = make(keys=str(tmp_path / "keys"), feedback=str(tmp_path))
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("GET", LINEAGE),
        ("POST", CHAT),
        ("POST", "/feedback"),
    ):
        for headers in ({}, {"authorization": f"Bearer {key}x"}, {"authorization": f"Basic {key}"}):
            assert is_error(client(method, path, headers=headers), 401)
    assert client("GET", "/health").status_code == client("GET", "/").status_code == 200
    assert client.chat(headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert client.proxy.asked[0]["headers"]["authorization"] == f"Bearer {key}"


def test_each_key_has_its_own_rate(make: Any, tmp_path: Path) -> None:
    one, two = (add(str(tmp_path / "keys"), name) for name in ("alice", "bob"))
    client = make(keys=str(tmp_path / "keys"), limits={"requests_per_minute": 2})
    asked = [client.chat(headers={"authorization": f"Bearer {key}"}) for key in (one, one, one, two)]
    assert [answer.status_code for answer in asked] == [200, 200, 429, 200]
    assert is_error(asked[2], 429)
    assert 1 <= int(asked[2].headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    ("fields", "param"), [({"n": 3}, "n"), ({"max_tokens": 11}, "max_tokens"), ({"min_tokens": 11}, "min_tokens")]
)
def test_what_is_over_a_limit_is_refused(make: Any, fields: dict[str, Any], param: str) -> None:
    client = make(limits={"n": 2, "max_tokens": 10})
    assert is_error(client.chat(**fields), 400, param)
    assert client.proxy.asked == []


def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(make: Any) -> None:
    client = make(limits={"body_bytes": 1000})
    data = json.dumps(BODY).encode()
    headers = {"content-type": "application/json"}

    async def pieces(size: int) -> AsyncIterator[bytes]:
        yield data
        for _ in range(size - len(data)):
            yield b" "

    for size, status in ((1000, 200), (1001, 413)):
        known = client("POST", CHAT, content=data.ljust(size), headers=headers)
        unknown = client("POST", CHAT, content=pieces(size), headers=headers)
        assert [known.status_code, unknown.status_code] == [status, status]
    assert is_error(known, 413)
    assert is_error(unknown, 413)


def test_a_length_that_no_integer_holds_is_too_large(client: Client) -> None:
    headers = {"content-length": "9" * 5000, "content-type": "application/json"}
    assert is_error(client("POST", CHAT, content=b"{}", headers=headers), 413)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
def test_only_what_says_it_is_json_is_read(make: Any, tmp_path: Path, kind: str) -> None:
    """A page of another site can make a browser post these, but not JSON, without asking here first."""
    client = make(feedback=str(tmp_path))
    for path in (CHAT, "/v1/completions", "/feedback"):
        assert is_error(client("POST", path, content=json.dumps(BODY), headers={"content-type": kind}), 415)
    json_of_utf8 = {"content-type": "Application/JSON; charset=utf-8"}
    assert client("POST", CHAT, content=json.dumps(BODY), headers=json_of_utf8).status_code == 200


# --- errors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/docs", 404),
        ("GET", "/static/nothing.js", 404),
        ("GET", "/static/..%2fgateway.py", 404),
        ("GET", "/static/%00", 404),
        ("GET", "/static/" + "a" * 300, 404),
        ("GET", "/static", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "/static/index.html", 405),
        ("GET", CHAT, 405),
        ("PUT", CHAT, 405),
        ("OPTIONS", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/feedback", 404),
    ],
)
def test_an_error_has_openais_shape(client: Client, method: str, path: str, status: int) -> None:
    assert is_error(client(method, path), status)


def test_an_unknown_model_is_named(client: Client) -> None:
    answer = client.chat(model="other")
    assert is_error(answer, 404, "model")
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_wrong_body_is_refused(client: Client) -> None:
    headers = {"content-type": "application/json"}
    assert is_error(client("POST", CHAT, content=b"{", headers=headers), 400)
    assert is_error(client.chat(temperature=3), 400, "temperature")


def test_without_a_folder_there_is_no_feedback(client: Client) -> None:
    assert is_error(client("POST", "/feedback", json={}), 404)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_relay_is_passed_on_and_logged(client: Client, log: Any, stream: bool) -> None:
    client.proxy.error = ApiError(429, "full", headers={"retry-after": "3"})
    answer = client.chat(stream=stream)
    assert is_error(answer, 429)
    assert answer.headers["retry-after"] == "3"
    assert [(line["status"], line["error"]) for line in log()] == [(429, "status_429")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_ours_tells_nothing_and_ends_the_request(client: Client, log: Any, stream: bool) -> None:
    client.proxy.error = RuntimeError("/secret/place")
    answer = client.chat(stream=stream)
    assert is_error(answer, 500)
    assert "secret" not in answer.text
    assert [(line["status"], line["error"]) for line in log()] == [(500, "RuntimeError")]
    assert client.gateway._telemetry._count == 0


def test_a_stream_that_fails_after_its_start_is_logged_as_broken(client: Client, log: Any) -> None:
    async def broken(*_: Any) -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        raise ApiError(408, "late", code="timeout")

    client.proxy.stream = broken  # type: ignore[method-assign,assignment]
    answer = client.chat(stream=True)
    events = answer.text.split("\n\n")
    assert [events[0], events[2:]] == ["data: {}", ["data: [DONE]", ""]]
    assert json.loads(events[1].removeprefix("data: "))["error"]["message"] == "late"
    assert [(line["status"], line["error"]) for line in log()] == [(200, "timeout")]


# --- headers and the log


@pytest.mark.parametrize("path", ["/", "/health", "/static/index.html", "/v1/models", "/openapi.json", "/nowhere"])
def test_security_headers_are_on_every_answer_once(client: Client, path: str) -> None:
    headers = client("GET", path).headers
    for name in SECURITY:
        assert len(headers.get_list(name)) == 1
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("given", ["a" * 129, "a b", "a\tb", "é", "a;b", '"', "", "<script>"])
def test_a_request_id_that_is_no_plain_word_is_replaced(client: Client, given: str) -> None:
    client.chat(headers={"x-request-id": given.encode("latin-1")})  # type: ignore[dict-item]
    made = client.proxy.asked[0]["headers"]["x-request-id"]
    assert (len(made), made.isalnum()) == (32, True)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:8000", ""])
def test_an_open_endpoint_answers_for_loopback_hosts_alone(client: Client, host: str) -> None:
    assert is_error(client.chat(headers={"host": host}), 400)
    assert client.proxy.asked == []


def test_with_keys_any_host_is_answered(make: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{keys.hash_key('k' * 16)} alice\n")
    client = make(keys=str(file))
    headers = {"host": "chat.example", "authorization": "Bearer " + "k" * 16}
    assert client.chat(headers=headers).status_code == 200


def test_what_is_refused_is_logged_too(make: Any, log: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{keys.hash_key('k' * 16)} alice\n")
    client = make(keys=str(file))
    good = {"authorization": "Bearer " + "k" * 16}
    client.chat()
    client.chat(headers=good, n=0)
    client.chat(headers=good, model="none")
    lines = [(line["status"], line["error"], line["key"], line["model"]) for line in log()]
    assert lines == [
        (401, "no_key", "", ""),
        (400, "status_400", "alice", ""),
        (404, "model_not_found", "alice", ""),
    ]


def test_the_access_log_has_one_line_without_any_text(client: Client, log: Any) -> None:
    client.chat(headers={"x-request-id": "r1"}, messages=[{"role": "user", "content": "a-private-word"}])
    client.chat(stream=True)
    first, second = log()
    assert {name: first[name] for name in ("request_id", "key", "route", "model", "status")} == {
        "request_id": "r1",
        "key": "open",
        "route": CHAT,
        "model": "tiny",
        "status": 200,
    }
    assert first["usage"] == {"prompt_tokens": 3, "completion_tokens": 1}
    assert (second["events"], second["status"]) == (2, 200)
    assert "a-private-word" not in json.dumps([first, second])
    assert "Yes" not in json.dumps([first, second])


def test_the_text_is_logged_where_that_is_asked_for(make: Any, log: Any) -> None:
    make(log_text=True).chat(messages=[{"role": "user", "content": "a-public-word"}])
    assert json.loads(log()[0]["body"])["messages"][0]["content"] == "a-public-word"


def test_a_name_stands_for_one_model() -> None:
    with pytest.raises(ValidationError, match="the name a is there twice"):
        GatewaySettings(models={"a": [], "b": ["a"]})


# --- what models say of themselves


@pytest.mark.parametrize("error", [TimeoutError(), ApiError(503, "not yet"), RayActorError(), RayServeException("x")])
def test_a_model_that_cannot_be_asked_is_listed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, client: Client, error: Exception
) -> None:
    running = SimpleNamespace(deployments={"d": SimpleNamespace(replica_states={ReplicaState.RUNNING: 1})})
    statuses = SimpleNamespace(applications={"tiny": running})
    monkeypatch.setattr(gateways.serve, "status", lambda: statuses)
    monkeypatch.setattr(Gateway, "_describe", DESCRIBE)
    assert client("GET", "/v1/models").json()["data"][0]["fingerprint"] == "of-tiny"

    async def fail(_: str) -> dict[str, Any]:
        raise error

    client.proxy.describe = fail  # type: ignore[assignment, method-assign]
    assert client("GET", "/v1/models").json()["data"][0]["fingerprint"] == "of-tiny"  # what it said last


def test_a_model_without_a_replica_is_listed_and_not_woken(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    idle = SimpleNamespace(deployments={"d": SimpleNamespace(replica_states={})})
    monkeypatch.setattr(gateways.serve, "status", lambda: SimpleNamespace(applications={"tiny": idle}))
    monkeypatch.setattr(Gateway, "_describe", DESCRIBE)
    client.proxy.describe = lambda model: pytest.fail("it was asked")  # type: ignore[method-assign]
    assert client("GET", "/v1/models").json()["data"][0]["fingerprint"] is None


# --- what made them


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    states = SimpleNamespace(deployments={"d": SimpleNamespace(replica_states={ReplicaState.RUNNING: 1})})
    monkeypatch.setattr(gateways.serve, "status", lambda: SimpleNamespace(applications={"tiny": states}))


@pytest.mark.usefixtures("running")
def test_a_models_lineage_is_what_its_replica_has(client: Client) -> None:
    lineage = {"system_fingerprint": "of-tiny", "of": ["dpo"]}
    assert client("GET", LINEAGE).json() == lineage
    assert client("GET", LINEAGE, params={"fingerprint": "of-tiny"}).json() == lineage
    another = client("GET", LINEAGE, params={"fingerprint": "of-another"})
    assert is_error(another, 404, "fingerprint")
    assert another.json()["error"]["code"] == "other_fingerprint"


@pytest.mark.usefixtures("running")
def test_a_model_without_a_lineage_an_adapter_and_no_model_are_not_found(client: Client) -> None:
    async def none(_: str) -> None:
        return None

    client.proxy.lineage = none  # type: ignore[assignment, method-assign]
    without = client("GET", LINEAGE)
    assert is_error(without, 404, "model")
    assert without.json()["error"]["code"] == "no_lineage"
    adapter = client("GET", "/v1/models/tiny-lora/lineage")
    assert is_error(adapter, 404, "model")
    assert "ask for the lineage of tiny" in adapter.json()["error"]["message"]
    assert is_error(client("GET", "/v1/models/other/lineage"), 404, "model")


@pytest.mark.parametrize("error", [TimeoutError(), RayActorError(), RayServeException("x")])
@pytest.mark.usefixtures("running")
def test_a_replica_that_does_not_answer_is_unavailable(client: Client, error: Exception) -> None:
    async def fail(_: str) -> dict[str, Any]:
        raise error

    client.proxy.lineage = fail  # type: ignore[assignment, method-assign]
    answer = client("GET", LINEAGE)
    assert is_error(answer, 503)
    assert answer.headers["retry-after"] == "5"


def test_a_model_without_a_replica_is_not_woken_for_its_lineage(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    idle = SimpleNamespace(deployments={"d": SimpleNamespace(replica_states={})})
    monkeypatch.setattr(gateways.serve, "status", lambda: SimpleNamespace(applications={"tiny": idle}))
    client.proxy.lineage = lambda model: pytest.fail("it was asked")  # type: ignore[method-assign]
    assert is_error(client("GET", LINEAGE), 503)
