"""What a status means, what an actor of the pool keeps to itself, and where it has its keys from."""

import asyncio
import logging
import socket
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from ray.exceptions import RayError

from zephyr_ray.config.feedback import Deployment, Endpoint, Sampling
from zephyr_ray.errors import UserError
from zephyr_ray.inference import clients, pool
from zephyr_ray.inference.clients import Busy, Refused, Unusable
from zephyr_ray.inference.server_reply import Reply
from zephyr_ray.schemas import PROMPTS


def test_requests_leave_nothing_in_the_log_even_where_they_fail(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:  # bound, but nothing listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        member = Endpoint(type="endpoint", name="a", base_url=url, model="m", retries=0)
        asked = pool.CandidatePool(Sampling(pool=(member,)), run_seed=0, applications={})
        messages = [{"role": "user", "content": "between us"}]
        batch = pa.Table.from_pylist([{"prompt_id": "p", "messages": messages, "source": "s"}], schema=PROMPTS)
        with caplog.at_level(logging.DEBUG):
            made = asyncio.run(asked(batch))
    assert made.schema == pool.ANSWERED
    assert made["failure"].to_pylist() == ["failed"]
    (error,) = made["error"].to_pylist()
    assert error.startswith("a (sample 0): ClientConnectorError: Cannot connect to host 127.0.0.1:")
    assert "between us" not in caplog.text
    assert not [record.name for record in caplog.records if record.name.startswith("aiohttp")]


def test_a_key_comes_from_the_variable_that_the_recipe_names(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Endpoint(type="endpoint", name="a", base_url="http://host/v1", model="m", api_key_env="POOL_KEY")
    monkeypatch.delenv("POOL_KEY", raising=False)
    with pytest.raises(UserError, match="a needs its key in POOL_KEY"):
        clients.EndpointClient(member, 1)
    monkeypatch.setenv("POOL_KEY", "sesame\n")
    assert "Authorization: Bearer sesame" in asyncio.run(heard(member))
    monkeypatch.setenv("OPENAI_API_KEY", "another's")  # is not sent to every server
    assert "Authorization: Bearer none" in asyncio.run(heard(member.model_copy(update={"api_key_env": None})))


def test_a_proxy_of_the_environment_is_used_and_a_netrc_file_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    member = Endpoint(type="endpoint", name="a", base_url="http://host.invalid/v1", model="m")
    line, *headers = asyncio.run(heard(member, through=monkeypatch))
    assert line == "POST http://host.invalid/v1/chat/completions HTTP/1.1"
    assert "Authorization: Bearer none" in headers


async def heard(member: Endpoint, through: pytest.MonkeyPatch | None = None) -> list[str]:
    """The first line and the headers of a request.

    Args:
        member: The endpoint, whose address is replaced by that of a server here.
        through: Sets variables of the environment; the server is then the member's proxy instead.
    """
    lines: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.extend((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        if through is None:
            member = member.model_copy(update={"base_url": f"{url}/v1"})
        else:
            through.setenv("http_proxy", url)
        server = clients.EndpointClient(member, 1)
        with pytest.raises(Refused):
            await server.send({"messages": []})
        await server.close()
    return lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"message": "too long"}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"detail": [{"loc": ["body"]}]}', "{'detail': [{'loc': ['body']}]}"),
        (b"upstream \xff gone\n", "upstream \ufffd gone"),
        (b"[" * 100_000, "[" * 500),
        (b"", ""),
    ],
)
def test_what_a_server_says_of_a_request_that_it_refuses(content: bytes, message: str) -> None:
    assert clients._message(content) == message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, Unusable),
        (403, Refused),
        (404, Unusable),
        (408, Busy),
        (422, Refused),
        (429, Busy),
        (503, Busy),
    ],
)
def test_what_a_status_means(status: int, kind: type[Exception]) -> None:
    error = clients._of_status(status, "why", None)
    assert type(error) is kind
    assert getattr(error, "is_overload", None) in {None, status in (429, 503)}


def test_workers_share_a_members_bound() -> None:
    member = Endpoint(type="endpoint", name="a", base_url="http://host/v1", model="m", max_in_flight=10)
    assert [pool.in_flight_share(member, workers) for workers in (1, 3, 10)] == [10, 3, 1]


def test_a_block_holds_twice_what_keeps_the_pool_busy() -> None:
    assert pool.rows_per_batch(8, 1) * 4 == 16
    assert pool.rows_per_batch(8, 4) * 4 == 4
    assert pool.rows_per_batch(8, 0.5) * 4 == 32
    assert pool.rows_per_batch(100_000, 1) == 256


@pytest.mark.parametrize(("hangs", "named"), [(False, "ServerDisconnectedError"), (True, "no answer in 0.3 s")])
def test_a_lost_connection_is_no_sign_that_the_server_has_too_much_to_do(hangs: bool, named: str) -> None:
    async def harm(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if hangs:
            await asyncio.sleep(0.6)
        writer.close()

    async def run() -> Busy:
        async with await asyncio.start_server(harm, "127.0.0.1", 0) as listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            endpoint = Endpoint(type="endpoint", name="a", base_url=url, model="m", timeout_s=0.3)
            server = clients.EndpointClient(endpoint, 1)
            with pytest.raises(Busy) as caught:
                await server.send({"messages": [{"role": "user", "content": "hi"}]})
            await server.close()
            return caught.value

    busy = asyncio.run(run())
    assert named in str(busy)
    assert busy.is_overload == hangs


def test_a_reply_is_read_whatever_type_it_is_said_to_have() -> None:
    content = b'{"choices": [{"message": {"content": "a\\ud83d"}}], "usage": {"completion_tokens": "5"}}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(content)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + content)
        writer.close()

    async def run() -> Reply:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            server = clients.EndpointClient(Endpoint(type="endpoint", name="a", base_url=url, model="m"), 1)
            try:
                return await server.send({"messages": [{"role": "user", "content": "hi"}]})
            finally:
                await server.close()

    assert asyncio.run(run()) == Reply("a?", None, None, None)


@pytest.mark.parametrize(("message", "reason"), [("", "RayError: "), ("it died\nat noon", "RayError: it died")])
def test_a_replica_that_dies_may_be_asked_again_whatever_it_said(
    monkeypatch: pytest.MonkeyPatch, message: str, reason: str
) -> None:
    async def complete(body: dict[str, Any]) -> Any:
        raise RayError(message)

    handle = SimpleNamespace(complete=SimpleNamespace(remote=complete))
    monkeypatch.setattr("ray.serve.get_app_handle", lambda name: handle)
    client = clients.DeploymentClient("app", Deployment(type="deployment", name="a", model="sft"))
    with pytest.raises(Busy) as caught:
        asyncio.run(client.send({"messages": []}))
    assert str(caught.value) == reason


def test_a_request_that_takes_too_long_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the engine goes on with it while it is asked again, and the more is asked the less is in time."""

    class Slow:
        def __init__(self) -> None:
            self.is_cancelled = False

        def __await__(self) -> Generator[Any, None, None]:
            return asyncio.sleep(60).__await__()

        def cancel(self) -> None:
            self.is_cancelled = True

    slow = Slow()
    handle = SimpleNamespace(complete=SimpleNamespace(remote=lambda body: slow))
    monkeypatch.setattr("ray.serve.get_app_handle", lambda name: handle)
    client = clients.DeploymentClient("app", Deployment(type="deployment", name="a", model="sft", timeout_s=0.01))
    with pytest.raises(Busy, match=r"^no answer in 0\.01 s$") as caught:
        asyncio.run(client.send({"messages": []}))
    assert caught.value.is_overload
    assert slow.is_cancelled
