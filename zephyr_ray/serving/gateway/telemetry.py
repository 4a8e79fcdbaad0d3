"""A line of access log for each request, and Prometheus metrics of the requests, exported by Ray."""

import json
import logging
import time
from typing import Any

from ray.util import metrics

logger = logging.getLogger("ray.serve")

_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600]


class Telemetry:
    """The gateway's own metrics. The engine's (queue length, tokens, cache ...) come from vLLM by the same way."""

    def __init__(self) -> None:
        self._requests = metrics.Counter(
            "zephyr_requests", description="Requests by route, model and status.", tag_keys=("route", "model", "status")
        )
        self._errors = metrics.Counter(
            "zephyr_errors", description="Requests that failed, by kind.", tag_keys=("model", "kind")
        )
        self._first = metrics.Histogram(
            "zephyr_time_to_first_token_seconds",
            description="From the request's arrival to its first event (streams only).",
            boundaries=_SECONDS,
            tag_keys=("model",),
        )
        self._each = metrics.Histogram(
            "zephyr_time_per_token_seconds",
            description="Between the events of a stream, on average over the stream.",
            boundaries=[second / 10 for second in _SECONDS],
            tag_keys=("model",),
        )
        self._seconds = metrics.Histogram(
            "zephyr_request_seconds",
            description="From arrival to the end of the answer.",
            boundaries=_SECONDS,
            tag_keys=("model",),
        )
        self._going = metrics.Gauge("zephyr_requests_in_progress", description="Requests being answered.")
        self._count = 0

    def begin(self, route: str, request_id: str) -> "Request":
        self._count += 1
        self._going.set(self._count)
        return Request(self, route, request_id)

    def end(self, request: "Request", status: int, kind: str | None) -> None:
        self._count -= 1
        self._going.set(self._count)
        model = {"model": request.model}
        self._requests.inc(1, {"route": request.route, "status": str(status), **model})
        if kind is not None:
            self._errors.inc(1, {"kind": kind, **model})
        self._seconds.observe(request.seconds, model)
        if request.first is not None:
            self._first.observe(request.first, model)
            if request.events > 1:
                self._each.observe((request.last - request.first) / (request.events - 1), model)
        # ASCII alone, so that no character of a text can end the line or rewrite it on a terminal.
        logger.info(json.dumps({"access": request.line(status, kind)}, ensure_ascii=True))


class Request:
    """One request, from its arrival to its end. No text of messages is kept unless `text` is set."""

    def __init__(self, telemetry: Telemetry, route: str, request_id: str):
        self._telemetry, self._began = telemetry, time.monotonic()
        self.route, self.id = route, request_id
        self.model, self.key = "", ""  # known once the request was let in and read
        self.first: float | None = None
        self.last = 0.0
        self.events = 0
        self.usage: dict[str, Any] | None = None
        self.text: str | None = None
        self._ended = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def saw(self, chunk: bytes) -> None:
        """Counts the events of a stream: one per token, a first one with the role and one or two at the end."""
        self.last = self.seconds
        if self.first is None:
            self.first = self.last
        self.events += chunk.count(b"\n\n")

    def end(self, status: int, kind: str | None = None) -> None:
        if not self._ended:
            self._ended = True
            self._telemetry.end(self, status, kind)

    def line(self, status: int, kind: str | None) -> dict[str, Any]:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": self.id,
            "key": self.key,
            "route": self.route,
            "model": self.model,
            "status": status,
            "seconds": round(self.seconds, 4),
        }
        if self.first is not None:
            line |= {"first_token_seconds": round(self.first, 4), "events": self.events}
        if self.usage is not None:
            line["usage"] = {name: self.usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        if kind is not None:
            line["error"] = kind
        if self.text is not None:
            line["body"] = self.text
        return line
