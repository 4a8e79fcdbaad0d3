"""The replicas here are small servers on loopback, each with one way to answer or to fail."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from zephyr_ray.serving.gateway.errors import ApiError, error_event
from zephyr_ray.serving.gateway.proxy import ReplicaProxy

BODY, HEADERS = b'{"model": "tiny"}', {"content-type": "application/json", "x-request-id": "r1"}
PATH = "/v1/chat/completions"
LOST = error_event("the model's replica was lost; send the request again", "replica_lost")
EVENTS = [b'data: {"n": 1}\n\n', 'data: {"n": "é"}\n\n'.encode(), b"data: [DONE]\n\n"]

Act = Callable[["Replica", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Replica:
    """A server that plays its acts, one per request; the last one for all that follow."""

    def __init__(self, *acts: Act):
        self._acts = list(acts)
        self.requests: list[bytes] = []
        self.disconnected = asyncio.Event()
        self.address = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        yield self.address
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self.requests.append(head + await reader.readexactly(length))
            act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
            await act(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def says(status: int, body: bytes, **headers: str) -> Act:
    async def act(_: Replica, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return act


def streams(*pieces: bytes, end: str = "whole") -> Act:
    """Chunks as they are given; then the end of the stream, a broken connection, or silence."""

    async def act(replica: Replica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0.002)
        if end == "whole":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        elif end == "silence":
            await hangs(replica, reader, writer)

    return act


async def hangs(replica: Replica, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()  # to the end of the connection
    replica.disconnected.set()


async def closes(*_: Any) -> None:
    """Ends the connection before an answer."""


class StandIn(ReplicaProxy):
    """A proxy that is handed the addresses, one after another; the last one for all that follow."""

    def __init__(self, addresses: list[str]):
        super().__init__()
        self._addresses, self.chosen = addresses, 0

    def _handle(self, model: str) -> Any:
        return model

    async def _choose(self, handle: Any) -> str:
        self.chosen += 1
        return self._addresses[min(self.chosen, len(self._addresses)) - 1]


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    # In the proxy's module alone: Ray's own loggers ask `ray` for more.
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr("zephyr_ray.serving.gateway.proxy.ray", SimpleNamespace(get_runtime_context=lambda: context))


def play(replicas: list[Replica], check: Callable[[StandIn], Coroutine[Any, Any, Any]]) -> Any:
    """Runs a check against a proxy that asks these replicas in turn, and sees that nothing is left over."""

    async def run() -> Any:
        async with AsyncExitStack() as stack:
            proxy = StandIn([await stack.enter_async_context(replica.serve()) for replica in replicas])
            try:
                found = await check(proxy)
                assert proxy._ongoing == Counter()
                return found
            finally:
                await proxy.close()

    return asyncio.run(asyncio.wait_for(run(), 30))


def whole(*replicas: Replica, seconds: float = 10) -> Any:
    return play(list(replicas), lambda proxy: proxy.whole("tiny", PATH, BODY, HEADERS, time.monotonic() + seconds))


def stream(*replicas: Replica, seconds: float = 10) -> list[bytes]:
    async def check(proxy: StandIn) -> list[bytes]:
        return [chunk async for chunk in proxy.stream("tiny", PATH, BODY, HEADERS, time.monotonic() + seconds)]

    return play(list(replicas), check)


OK = says(200, b'{"object": "chat.completion"}')
ANSWER = {"object": "chat.completion"}


async def _refused_address(proxy: StandIn) -> Any:
    """The first address is one where nobody listens any more."""
    proxy._addresses.insert(0, await _free_address())
    return await proxy.whole("tiny", PATH, BODY, HEADERS, time.monotonic() + 10)


async def _free_address() -> str:
    async with Replica(closes).serve() as address:
        return address


# --- an answer in one piece


def test_an_answer_comes_back_and_the_request_arrives_as_it_was() -> None:
    replica = Replica(OK)
    assert whole(replica) == ANSWER
    (request,) = replica.requests
    assert request.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + BODY)
    assert b"x-request-id: r1\r\n" in request.lower()


def test_a_replica_that_refuses_connections_is_tried_around() -> None:
    replica = Replica(OK)
    assert play([replica], _refused_address) == ANSWER
    assert len(replica.requests) == 1


@pytest.mark.parametrize("failure", [closes, says(500, b"oops"), says(503, b"{}")], ids=["closes", "500", "503"])
def test_another_replica_gets_the_same_request(failure: Act) -> None:
    broken, sound = Replica(failure), Replica(OK)
    assert whole(broken, sound) == ANSWER
    bodies = [request.partition(b"\r\n\r\n")[2] for request in broken.requests + sound.requests]
    assert bodies == [BODY, BODY]


def test_half_an_answer_is_no_answer() -> None:
    async def half(_: Replica, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"object"')
        await writer.drain()

    assert whole(Replica(half), Replica(OK)) == ANSWER


def test_replicas_that_go_one_after_another_cost_nothing() -> None:
    assert whole(*(Replica(closes) for _ in range(4)), Replica(OK)) == ANSWER


def test_a_server_error_is_passed_on_after_two_more_tries_without_its_text() -> None:
    replica = Replica(says(500, b"Traceback: /secret/place.py"))
    with pytest.raises(ApiError) as raised:
        whole(replica)
    assert (raised.value.status, len(replica.requests)) == (500, 3)
    assert raised.value.message == "the model's replica failed"


def test_what_the_replica_refuses_is_not_tried_again() -> None:
    error = {"error": {"message": "too long", "type": "x", "param": "messages", "code": 400}}
    replica = Replica(says(400, json.dumps(error).encode()))
    with pytest.raises(ApiError) as raised:
        whole(replica)
    found = raised.value
    assert (found.status, found.message, found.param, len(replica.requests)) == (400, "too long", "messages", 1)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{}", b'{"error": "x"}', b'{"error": null}', b"\xff", b"", b'{"error": {"message": 3, "param": 4}}'],
)
def test_a_refusal_in_another_shape_is_a_refusal_all_the_same(body: bytes) -> None:
    with pytest.raises(ApiError) as raised:
        whole(Replica(says(422, body)))
    assert (raised.value.status, raised.value.param) == (422, None)
    assert raised.value.message


@pytest.mark.parametrize(("headers", "wait"), [({"retry_after": "7"}, "7"), ({}, "1")])
def test_a_full_queue_says_when_to_come_back(headers: dict[str, str], wait: str) -> None:
    with pytest.raises(ApiError) as raised:
        whole(Replica(says(429, b"Request dropped due to backpressure", **headers)))
    assert (raised.value.status, raised.value.headers) == (429, {"retry-after": wait})
    assert "backpressure" not in raised.value.message


@pytest.mark.parametrize("act", [hangs, closes], ids=["hangs", "closes"])
@pytest.mark.parametrize("ask", [whole, stream])
def test_the_deadline_is_408(act: Act, ask: Callable[..., Any]) -> None:
    began = time.monotonic()
    with pytest.raises(ApiError) as raised:
        ask(Replica(act), seconds=0.3)
    assert (raised.value.status, raised.value.code) == (408, "timeout")
    assert 0.2 < time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("error", "status"),
    [(BackPressureError(num_queued_requests=9, max_queued_requests=9), 429), (DeploymentUnavailableError, 503)],
)
def test_without_a_replica_to_choose_the_client_is_told_when_to_come_back(error: Any, status: int) -> None:
    made = error if isinstance(error, Exception) else error.__new__(error)

    async def check(proxy: StandIn) -> None:
        async def choose(_: Any) -> str:
            raise made

        proxy._choose = choose  # type: ignore[assignment, method-assign]
        with pytest.raises(ApiError) as raised:
            await proxy.whole("tiny", PATH, BODY, HEADERS, time.monotonic() + 5)
        assert raised.value.status == status
        assert int(raised.value.headers["retry-after"]) >= 1

    play([Replica(OK)], check)


def test_a_cancelled_request_lets_its_replica_go() -> None:
    replica = Replica(hangs)

    async def check(proxy: StandIn) -> None:
        task = asyncio.create_task(proxy.whole("tiny", PATH, BODY, HEADERS, time.monotonic() + 10))
        while not replica.requests:
            await asyncio.sleep(0.01)
        assert proxy._ongoing == {replica.address: 1}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(replica.disconnected.wait(), 2)

    play([replica], check)


# --- a stream


@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 1000])
def test_events_come_whole_however_they_were_cut(size: int) -> None:
    data = b"".join(EVENTS)
    chunks = stream(Replica(streams(*(data[start : start + size] for start in range(0, len(data), size)))))
    assert b"".join(chunks) == data
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)


@pytest.mark.parametrize(
    "failure", [closes, says(500, b"oops"), streams(end="broken"), streams(b"data: {", end="broken"), streams()]
)
def test_a_replica_that_goes_before_the_first_event_costs_nothing(failure: Act) -> None:
    assert b"".join(stream(Replica(failure), Replica(streams(*EVENTS)))) == b"".join(EVENTS)


@pytest.mark.parametrize("end", ["broken", "whole"])
def test_a_stream_that_breaks_amid_an_event_ends_with_one_error_and_done(end: str) -> None:
    second = Replica(streams(*EVENTS))
    chunks = stream(Replica(streams(EVENTS[0], EVENTS[1][:8], end=end)), second)
    assert b"".join(chunks) == EVENTS[0] + LOST
    assert second.requests == []  # the client has a part of the answer: no other replica may go on with it


def test_a_stream_that_breaks_between_events_ends_with_one_error_and_done() -> None:
    assert b"".join(stream(Replica(streams(*EVENTS[:2], end="broken")))) == b"".join(EVENTS[:2]) + LOST


def test_a_stream_that_takes_too_long_ends_with_one_error_and_done() -> None:
    replica = Replica(streams(EVENTS[0], b"data: {", end="silence"))
    late = error_event("the request took longer than it may", "timeout")
    assert b"".join(stream(replica, seconds=0.3)) == EVENTS[0] + late


def test_a_refused_stream_is_an_ordinary_error() -> None:
    with pytest.raises(ApiError) as raised:
        stream(Replica(says(404, b'{"error": {"message": "no such model"}}')))
    assert (raised.value.status, raised.value.message) == (404, "no such model")


@pytest.mark.parametrize(
    ("event", "refused"),
    [
        (b'{"error": {"message": "no 7", "param": "stop_token_ids", "code": 400}}', (400, "no 7", "stop_token_ids")),
        (b'{"error": {"message": "/secret", "param": null, "code": 500}}', (500, "the model's replica failed", None)),
        (b'{"error": "odd"}', (500, "the model's replica failed", None)),
    ],
)
def test_a_stream_that_begins_with_an_error_is_an_ordinary_error(event: bytes, refused: tuple[Any, ...]) -> None:
    with pytest.raises(ApiError) as raised:
        stream(Replica(streams(b"data: " + event + b"\n\n", b"data: [DONE]\n\n")))
    assert (raised.value.status, raised.value.message, raised.value.param) == refused


def test_an_error_amid_a_stream_is_passed_on() -> None:
    event = b'data: {"error": {"message": "x", "code": 500}}\n\n'
    assert b"".join(stream(Replica(streams(EVENTS[0], event)))) == EVENTS[0] + event


def test_a_client_that_leaves_closes_the_replicas_connection() -> None:
    replica = Replica(streams(EVENTS[0], end="silence"))

    async def check(proxy: StandIn) -> None:
        async with aclosing(proxy.stream("tiny", PATH, BODY, HEADERS, time.monotonic() + 10)) as events:
            assert await anext(events) == EVENTS[0]
            assert proxy._ongoing == {replica.address: 1}
        await asyncio.wait_for(replica.disconnected.wait(), 2)

    play([replica], check)


def test_a_cancelled_stream_closes_the_replicas_connection() -> None:
    replica = Replica(streams(EVENTS[0], end="silence"))

    async def check(proxy: StandIn) -> None:
        async def read() -> None:
            async with aclosing(proxy.stream("tiny", PATH, BODY, HEADERS, time.monotonic() + 10)) as events:
                async for _ in events:
                    pass

        task = asyncio.create_task(read())
        while not replica.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(replica.disconnected.wait(), 2)

    play([replica], check)


# --- the choice


@pytest.mark.parametrize(
    ("host", "node", "address"),
    [("10.0.0.2", "there", "10.0.0.2:80"), ("10.0.0.2", "here", "127.0.0.1:80"), ("fd00::2", "there", "[fd00::2]:80")],
)
def test_a_replica_of_this_node_is_asked_on_loopback(
    host: str, node: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zephyr_ray.serving.gateway.proxy.get_localhost_ip", lambda: "127.0.0.1")
    assert ReplicaProxy()._address(SimpleNamespace(backend_http_endpoint=(host, 80), node_id=node)) == address


def test_of_two_replicas_the_one_with_fewer_requests_is_asked() -> None:
    drawn = iter(["busy:1", "idle:1"])

    class Handle:
        @asynccontextmanager
        async def choose_replica(self, _reserve: bool) -> AsyncIterator[Any]:
            host, _, port = next(drawn).partition(":")
            replica = SimpleNamespace(backend_http_endpoint=(host, int(port)), node_id="there")
            yield SimpleNamespace(_replica=replica)

    proxy = ReplicaProxy()
    proxy._ongoing.update({"busy:1": 2, "idle:1": 1})
    assert asyncio.run(proxy._choose(Handle())) == "idle:1"  # type: ignore[arg-type]


def test_without_a_replica_the_wait_is_one_that_ray_serve_counts_as_queued() -> None:
    asked = []

    class Handle:
        @asynccontextmanager
        async def choose_replica(self, _reserve: bool = True) -> AsyncIterator[Any]:
            asked.append(_reserve)
            if not _reserve and True not in asked:
                await asyncio.Event().wait()  # no replica, and none comes of this
            replica = SimpleNamespace(backend_http_endpoint=("new", 1), node_id="there")
            yield SimpleNamespace(_replica=replica)

    assert asyncio.run(asyncio.wait_for(ReplicaProxy()._choose(Handle()), 5)) == "new:1"  # type: ignore[arg-type]
    assert asked == [False, True, False]
