"""Clients that send one request to an OpenAI-compatible endpoint or to a deployment on Ray Serve.

Failures are of three kinds: `Busy` may pass and is retried, `Refused` concerns this request alone, and `Unusable`
concerns every request.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any, Protocol

from zephyr_ray.config.feedback import Deployment, Endpoint
from zephyr_ray.errors import UserError
from zephyr_ray.inference.server_reply import NoCompletion, Reply, parse_json, read_reply

if TYPE_CHECKING:
    import openai

_CONNECT_S = 10.0
_CHATTY = ("openai", "httpx2", "aiohttp")
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
        # A log line per request says nothing about the run, and may hold things that do not belong in a log.
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("asyncio").addFilter(_says_something)
        self._model = endpoint.model
        self._client = _client(endpoint, in_flight)
        # The raw reply: the client builds objects of its types from any JSON, and fails on some.
        self._answer = self._client.chat.completions.with_raw_response.create
        self._complete = self._client.completions.with_raw_response.create

    async def send(self, body: dict[str, Any]) -> Reply:
        import openai

        is_text = "prompt" in body
        try:
            reply = await (self._complete if is_text else self._answer)(model=self._model, **body)
        except openai.APIStatusError as error:
            if is_text and error.status_code in _NO_SUCH_ROUTE:
                where = f"POST {self._client.base_url}completions"
                raise Unusable(f"no completions API ({where}) with model {self._model}: {_reason(error)}") from None
            raise _of_status(error.status_code, _reason(error), _retry_after(error)) from None
        except openai.APITimeoutError as error:
            causes = _causes(error)
            if any(isinstance(cause, TimeoutError) for cause in causes):
                raise Busy(_reason(error), is_overload=True) from None
            # The aiohttp transport reports a refused or lost connection as a timeout too.
            raise Busy(f"APIConnectionError: Connection error. ({type(causes[-1]).__name__})") from None
        except openai.OpenAIError as error:
            raise Busy(_reason(error)) from None
        return read_body(reply.content, is_text=is_text)


class DeploymentClient:
    """Client of a deployment of `serving.stage_deployments` on this cluster's Ray Serve."""

    def __init__(self, application: str, deployment: Deployment):
        from ray import serve

        self._handle = serve.get_app_handle(application)
        self._timeout_s = deployment.timeout_s

    async def send(self, body: dict[str, Any]) -> Reply:
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        plain = {key: value for key, value in body.items() if value is not None and key != "extra_body"}
        try:
            async with asyncio.timeout(self._timeout_s):
                status, reply = await self._handle.complete.remote(plain | (body.get("extra_body") or {}))
        except TimeoutError:
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


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:  # missing, or a date
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _client(endpoint: Endpoint, in_flight: int) -> openai.AsyncOpenAI:
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(_CONNECT_S, endpoint.timeout_s))
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=_api_key(endpoint),
        max_retries=0,  # `RetryingClient` retries, so that it sees how busy the server is
        timeout=timeout,
        # The default client scans all open connections for each request; with hundreds that takes most of its time.
        http_client=openai.DefaultAioHttpClient(limits=limits, timeout=timeout),
    )


def _api_key(endpoint: Endpoint) -> str:
    if endpoint.api_key_env is None:
        return "none"  # the client requires one; a server without keys ignores it
    key = os.environ.get(endpoint.api_key_env)
    if not key:
        raise UserError(f"{endpoint.name} needs its key in {endpoint.api_key_env}, which a worker does not have")
    return key


def _reason(error: Exception) -> str:
    """The error's message, with the cause that the client leaves out."""
    cause = f" ({type(error.__cause__).__name__})" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {error}{cause}"


def _says_something(record: logging.LogRecord) -> bool:
    """Filters out warnings about sessions still open when their actor ends, when nothing can close them any more."""
    return not record.getMessage().startswith(("Unclosed client session", "Unclosed connector"))


def _causes(error: BaseException) -> list[BaseException]:
    """The error and its chain of causes."""
    return [error] if error.__cause__ is None else [error, *_causes(error.__cause__)]
