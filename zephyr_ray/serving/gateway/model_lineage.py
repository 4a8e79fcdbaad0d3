"""The answer to /v1/models/NAME/lineage: what made the model that is served under a name."""

from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from zephyr_ray.serving.gateway.errors import ApiError

Ask = Callable[[str], Awaitable[dict[str, Any] | None]]
"""A model's name -> what its replica knows (`ChatReplica.lineage`)."""


async def answer(name: str, ask: Ask, fingerprint: str | None) -> dict[str, Any]:
    """The lineage of a model.

    Args:
        name: The model's.
        ask: Asks its replica; raises TimeoutError where none answers.
        fingerprint: An answer's `system_fingerprint`, which must be the model's; None: whatever is served.

    Raises:
        ApiError: No replica answers, the model has no lineage, or another one is served by now.
    """
    try:
        found = await ask(name)
    except (TimeoutError, RayError, RayServeException):
        message = f"no replica of {name} answers now; it starts with the next chat request"
        raise ApiError(503, message, headers={"retry-after": "5"}) from None
    if found is None:
        message = f"{name} has no lineage: no run of zephyr_ray made it, or one of an earlier version"
        raise ApiError(404, message, "model", code="no_lineage")
    if fingerprint not in (None, found["system_fingerprint"]):
        message = f"{name} is another model by now: its fingerprint is {found['system_fingerprint']}"
        raise ApiError(404, message, "fingerprint", code="other_fingerprint")
    return found
