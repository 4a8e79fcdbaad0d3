"""Clients that send one request to an OpenAI-compatible endpoint or to a deployment on Ray Serve.

Failures are of three kinds: `Busy` may pass and is retried, `Refused` concerns this request alone, and `Unusable`
concerns every request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from zephyr_ray.config.feedback import Deployment, Endpoint
from zephyr_ray.errors import UserError
from zephyr_ray.inference.server_reply import NoCompletion, Reply, parse_json, read_reply

if TYPE_CHECKING:
    import aiohttp

_CONNECT_S = 10.0
_LONGEST_REASON = 500  # characters of a server's own words
_PASSING = frozenset({408, 409, 425, 429})
_UNUSABLE = frozenset({401, 404})
_NO_SUCH_ROUTE = frozenset({404, 405, 501})


class Busy(Exception):  # noqa: N818 (what a server is, not an error of the program)
    """A failure that may pass and cost nothing: 408, 409, 425, 429, 5xx, a timeout, a lost connection, a reply that is
    not JSON or no completion."""

    def __init__(self, reason: str, *, retry_after: float | None = None, is_overload: bool = False):
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds to wait, as the server asks; None if it does not."""
        self.is_overload = is_overload
        """Whether fewer open requests would help: 429, 503 or a timeout."""


class Refused(Exception):  # noqa: N818
    """The server refuses this request, and would refuse it again."""


class Unusable(Exception):  # noqa: N818
    """The server refuses every request of ours: a wrong key, an unknown model."""


class Client(Protocol):
    """Sends requests to one server."""

    async def send(self, body: dict[str, Any]) -> Reply:
        """Sends one request, once.

        Args:
            body: The body of OpenAI's chat completions, without the model; or, where it has a `prompt`, of OpenAI's
                completions.

        Raises:
            Busy, Refused, Unusable: There is no reply, or it cannot be used.
        """


class EndpointClient:
    """Client of an OpenAI-compatible endpoint."""

    def __init__(self, endpoint: Endpoint, in_flight: int):
        logging.getLogger("asyncio").addFilter(_says_something)
        self._endpoint, self._in_flight = endpoint, in_flight
        self._headers = {"Authorization": f"Bearer {_api_key(endpoint)}"}
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: dict[str, Any]) -> Reply:
        import aiohttp

        is_text = "prompt" in body
        url = self._endpoint.base_url.rstrip("/") + ("/completions" if is_text else "/chat/completions")
        session = self._session = self._session or _session(self._endpoint, self._in_flight)
        try:
            async with session.post(url, json=self._fields(body), headers=self._headers) as response:
                content = await response.read()
        except TimeoutError as error:
            raise Busy(self._timed_out(error), is_overload=True) from None
        # ValueError: of a server that redirects to an address with a user's name in it.
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Busy(_reason(error)) from None
        if response.ok:
            return read_body(content, is_text=is_text)
        reason = f"status {response.status}: {_message(content)}"
        if is_text and response.status in _NO_SUCH_ROUTE:
            raise Unusable(f"no completions API (POST {url}) with model {self._endpoint.model}: {reason}")
        raise _of_status(response.status, reason, _retry_after(response.headers))

    async def close(self) -> None:
        """Closes its connections."""
        if self._session is not None:
            await self._session.close()

    def _fields(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"model": self._endpoint.model, **_given(body)}

    def _timed_out(self, error: TimeoutError) -> str:
        import aiohttp

        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection in {min(_CONNECT_S, self._endpoint.timeout_s):g} s"
        return f"no answer in {self._endpoint.timeout_s:g} s"


class DeploymentClient:
    """Client of a deployment of `serving.stage_deployments` on this cluster's Ray Serve."""

    def __init__(self, application: str, deployment: Deployment):
        from ray import serve

        self._handle = serve.get_app_handle(application)
        self._timeout_s = deployment.timeout_s

    async def send(self, body: dict[str, Any]) -> Reply:
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        response = self._handle.complete.remote(_given(body))
        try:
            async with asyncio.timeout(self._timeout_s):
                status, reply = await response
        except TimeoutError:
            response.cancel()  # else the engine goes on, beside what is asked again: nothing would ever be in time
            raise Busy(f"no answer in {self._timeout_s:g} s", is_overload=True) from None
        except (RayError, RayServeException) as error:  # a replica died, or none has started
            first_line = str(error).strip().partition("\n")[0]
            raise Busy(f"{type(error).__name__}: {first_line}") from None
        if status != 200:
            raise _of_status(status, reply, None)
        return Reply(**reply)


def read_body(body: bytes, *, is_text: bool = False) -> Reply:
    """Reads the body of a reply with status 200 (`server_reply.read_reply`).

    Args:
        body: The body.
        is_text: Whether it replies to a completion request, not to a chat request.

    Raises:
        Busy: It is not JSON, or it is no completion and cannot have been billed.
    """
    try:
        return read_reply(parse_json(body), is_text=is_text)
    except NoCompletion as error:
        raise Busy(str(error)) from None
    except ValueError as error:
        raise Busy(_reason(error)) from None


def _of_status(status: int, reason: str, retry_after: float | None) -> Exception:
    if status in _PASSING or status >= 500:
        return Busy(reason, retry_after=retry_after, is_overload=status in (429, 503))
    return Unusable(reason) if status in _UNUSABLE else Refused(reason)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:  # missing, or a date
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _given(body: dict[str, Any]) -> dict[str, Any]:
    """A request's fields that have a value, with those of `extra_body` among them."""
    fields = {name: value for name, value in body.items() if value is not None and name != "extra_body"}
    return fields | (body.get("extra_body") or {})


def _message(content: bytes) -> str:
    """What a server says of a request that it does not answer: the message of OpenAI's error object, or its words."""
    try:
        error = parse_json(content)
    except (ValueError, NoCompletion):
        return content[:_LONGEST_REASON].decode("utf-8", "replace").strip()
    error = error.get("error", error) if isinstance(error, dict) else error
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:_LONGEST_REASON]


def _session(endpoint: Endpoint, in_flight: int) -> aiohttp.ClientSession:
    """Connections to an endpoint. To be called where the event loop runs."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=in_flight),
        timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s, sock_connect=min(_CONNECT_S, endpoint.timeout_s)),
        proxy=_proxy(endpoint.base_url),
    )


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a host; aiohttp's own `trust_env` would read a netrc file too."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _api_key(endpoint: Endpoint) -> str:
    if endpoint.api_key_env is None:
        return "none"  # the client requires one; a server without keys ignores it
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise UserError(f"{endpoint.name} needs its key in {endpoint.api_key_env}, which a worker does not have")
    return key


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _says_something(record: logging.LogRecord) -> bool:
    """Filters out warnings about sessions still open when their actor ends, when nothing can close them any more."""
    return not record.getMessage().startswith(("Unclosed client session", "Unclosed connector"))
