"""The gateway, the one deployment that clients reach: the chat page, the OpenAI routes over every model, and feedback.

It checks keys, limits and bodies, and hands a request to a replica of the model (`proxy`). All that a token costs here
is a copy of its bytes.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ReplicaState
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from zephyr_ray.serving import keys
from zephyr_ray.serving.gateway import feedback, model_lineage, openapi
from zephyr_ray.serving.gateway.errors import ApiError, error_body, error_event
from zephyr_ray.serving.gateway.middleware import RequestGuard
from zephyr_ray.serving.gateway.proxy import ReplicaProxy
from zephyr_ray.serving.gateway.request_models import ChatCompletionBody, CompletionBody, Sampling, parse
from zephyr_ray.serving.gateway.settings import GatewaySettings
from zephyr_ray.serving.gateway.telemetry import Request as Measured
from zephyr_ray.serving.gateway.telemetry import Telemetry
from zephyr_ray.serving.open_length import leave_open

logger = logging.getLogger("ray.serve")

STATIC = Path(__file__).with_name("static")
_DESCRIBE_S = 2.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Gateway:
    """The deployment behind `/`."""

    def __init__(self, settings: GatewaySettings):
        if settings.open:
            _check_loopback()
        self._settings = settings
        self._keys = None if settings.open else keys.read(settings.keys)
        self._proxy, self._telemetry = ReplicaProxy(), Telemetry()
        self._feedback = feedback.open_feedback(settings.feedback) if settings.feedback else None
        self._app_of = {name: app for app, adapters in settings.models.items() for name in (app, *adapters)}
        self._described: dict[str, dict[str, Any]] = {}
        self._rate = MovingWindowRateLimiter(MemoryStorage())

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_app(self)

    def who(self, request: Request) -> str:
        """The name of the request's key; counts the request against the key's limit.

        Raises:
            ApiError: 401 without a valid key, 429 over the limit.
        """
        name = "open"
        if self._keys is not None:
            known = self._keys.name_of(request.headers.get("authorization"))
            if known is None:
                raise ApiError(401, "give a valid API key in the header `Authorization: Bearer ...`", code="no_key")
            name = known
        per_minute = self._settings.limits.requests_per_minute
        if per_minute:
            allowed = RateLimitItemPerMinute(per_minute)
            if not self._rate.hit(allowed, name):
                wait = max(1, round(self._rate.get_window_stats(allowed, name).reset_time - time.time()))
                raise ApiError(429, f"over {per_minute} requests a minute", headers={"retry-after": str(wait)})
        return name

    async def models(self) -> list[dict[str, Any]]:
        """The models and adapters that can be asked for, with the fingerprints of those that run."""
        await asyncio.gather(*(self._describe(app) for app in self._settings.models))
        listed = []
        for name, app in self._app_of.items():
            known = self._described.get(app, {})
            listed.append(
                {
                    "id": name,
                    "object": "model",
                    "created": 0,
                    "owned_by": "zephyr_ray",
                    "root": app,
                    "parent": None if name == app else app,
                    "fingerprint": known.get("fingerprint"),
                    "max_model_len": known.get("max_model_len"),
                }
            )
        return listed

    async def _describe(self, app: str) -> None:
        """Asks a model that has a replica. One that is scaled to zero is not woken up for it."""
        if not await _has_replica(app):
            return
        try:
            self._described[app] = await asyncio.wait_for(self._proxy.describe(app), _DESCRIBE_S)
        except (TimeoutError, RayError, RayServeException, ApiError):  # busy or going: what it said last still stands
            return

    async def lineage(self, name: str, fingerprint: str | None) -> dict[str, Any]:
        """What made a model (`model_lineage.answer`)."""
        app = self._app_of.get(name)
        if app is None:
            raise _no_model(name)
        if app != name:
            raise ApiError(404, f"{name} is an adapter; ask for the lineage of {app}", "model", code="no_lineage")
        return await model_lineage.answer(name, self._ask_lineage, fingerprint)

    async def _ask_lineage(self, app: str) -> dict[str, Any] | None:
        """Asks a running replica.

        Raises:
            TimeoutError: There is none, or it does not answer.
        """
        if not await _has_replica(app):
            raise TimeoutError
        return await asyncio.wait_for(self._proxy.lineage(app), _DESCRIBE_S)

    async def complete(self, request: Request, body_model: type[Sampling], path: str) -> Response:
        """Answers a chat or completion request, and measures it whatever becomes of it."""
        measured = self._telemetry.begin(path, _request_id(request) or uuid.uuid4().hex)
        try:
            return await self._answer(request, body_model, measured)
        except ApiError as error:
            measured.end(error.status, error.code or f"status_{error.status}")
            raise
        except asyncio.CancelledError:
            measured.end(499, "client_gone")
            raise
        except Exception as error:
            measured.end(500, type(error).__name__)
            raise

    async def _answer(self, request: Request, body_model: type[Sampling], measured: Measured) -> Response:
        measured.key = self.who(request)
        data = await _json_of(request)
        if self._settings.log_text:
            measured.text = data.decode("utf-8", "replace")
        body = parse(data, body_model, self._settings.limits)
        app = self._app_of.get(body["model"])
        if app is None:
            known = ", ".join(self._app_of)
            message = f"there is no model {body['model']}; there are {known}"
            raise ApiError(404, message, "model", code="model_not_found")
        measured.model = body["model"]
        if "max_tokens" not in body and "max_completion_tokens" not in body:
            leave_open(body, self._settings.limits.max_tokens)
        headers = {"content-type": "application/json", "x-request-id": measured.id}
        if "authorization" in request.headers:
            headers["authorization"] = request.headers["authorization"]
        deadline = time.monotonic() + self._settings.limits.timeout_s
        upstream = (app, measured.route, json.dumps(body).encode(), headers, deadline)
        if body.get("stream"):
            events = self._proxy.stream(*upstream)
            first = await anext(events)  # what goes wrong before the first event is an ordinary error answer
            return EventStream(first, events, measured)
        answer = await self._proxy.whole(*upstream)
        measured.usage = answer.get("usage")
        measured.end(200)
        return Response(json.dumps(answer).encode(), media_type="application/json")

    async def vote(self, request: Request) -> Response:
        """Stores a person's choice."""
        self.who(request)
        if self._feedback is None:
            raise ApiError(404, "this endpoint keeps no feedback; start it with a run or --feedback")
        body = feedback.parse(await _json_of(request))
        try:
            new = await asyncio.to_thread(self._feedback.store, body)
        except OSError as error:  # a full disk, a folder that is read-only or gone: nothing that the client did
            logger.error("feedback %s was not kept in %s: %s", body.id, self._settings.feedback, error)
            raise ApiError(503, "the choice could not be stored", code="not_stored") from None
        return Response(json.dumps({"id": str(body.id), "stored": new}), 201, media_type="application/json")

    async def close(self) -> None:
        await self._proxy.close()


async def _has_replica(app: str) -> bool:
    """Whether a model has a replica that runs."""
    statuses = await asyncio.to_thread(serve.status)
    deployed = statuses.applications.get(app)
    return deployed is not None and any(
        each.replica_states.get(ReplicaState.RUNNING) for each in deployed.deployments.values()
    )


def _no_model(name: str) -> ApiError:
    return ApiError(404, f"there is no model {name}", "model", code="model_not_found")


def _check_loopback() -> None:
    """An endpoint without keys is for this machine alone."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    host = client.http_config.host if client is not None else None
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"open: true goes with an HTTP host on loopback, not {host}; give API keys")


async def _json_of(request: Request) -> bytes:
    """The body of a request that says it is JSON: what a page of another site can post unasked never does."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "give the body as JSON, with the header `Content-Type: application/json`")
    return await request.body()


def _request_id(request: Request) -> str | None:
    """The client's name for its request, where it is one that can stand in headers and logs."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else None


class EventStream(Response):
    """A stream of server-sent events that is sent as it comes. Nothing but the copy happens per token."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes], measured: Measured):
        self._first, self._rest, self._measured = first, rest, measured
        self.background, self.status_code = None, 200
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        measured, kind = self._measured, None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            measured.saw(self._first)
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for chunk in self._rest:
                measured.saw(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if chunk.startswith(b'data: {"error"'):
                    kind = "broken_stream"
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            measured.end(499, "client_gone")
            raise
        except ApiError as error:  # after the first event; the client reads it as the stream's last
            kind = error.code or f"status_{error.status}"
            await send({"type": "http.response.body", "body": error_event(error.message, kind), "more_body": False})
        except Exception as error:
            kind = type(error).__name__
            raise
        finally:
            await self._rest.aclose()  # type: ignore[attr-defined]
            measured.end(200, kind)


def build_app(gateway: Gateway) -> ASGIApp:
    """The routes. Every answer that is not a success has OpenAI's error shape."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.close()

    app = FastAPI(title="zephyr_ray chat", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/health", **openapi.health)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", **openapi.models)
    async def models(request: Request) -> dict[str, Any]:
        gateway.who(request)
        return {"object": "list", "data": await gateway.models()}

    @app.get("/v1/models/{name}", **openapi.model)
    async def model(name: str, request: Request) -> dict[str, Any]:
        gateway.who(request)
        for known in await gateway.models():
            if known["id"] == name:
                return known
        raise _no_model(name)

    @app.get("/v1/models/{name}/lineage", **openapi.lineage)
    async def lineage(name: str, request: Request, fingerprint: str | None = None) -> dict[str, Any]:
        gateway.who(request)
        return await gateway.lineage(name, fingerprint)

    @app.post("/v1/chat/completions", **openapi.chat)
    async def chat(request: Request) -> Response:
        return await gateway.complete(request, ChatCompletionBody, "/v1/chat/completions")

    @app.post("/v1/completions", **openapi.completions)
    async def completions(request: Request) -> Response:
        return await gateway.complete(request, CompletionBody, "/v1/completions")

    @app.post("/feedback", **openapi.feedback)
    async def vote(request: Request) -> Response:
        return await gateway.vote(request)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return Response(error.body(), error.status, media_type="application/json", headers=error.headers)

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: Any) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        body = error_body(error.status_code, message)
        return Response(body, error.status_code, media_type="application/json", headers=error.headers)

    @app.exception_handler(Exception)
    async def server_error(_: Request, error: Exception) -> Response:
        return Response(
            error_body(500, f"the server failed: {type(error).__name__}"), 500, media_type="application/json"
        )

    settings = gateway._settings
    return RequestGuard(app, settings.limits.body_bytes, loopback_only=settings.open)
