"""What an OpenAI-compatible endpoint says of its models, asked before anything else is."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from typing import Any

from zephyr_ray.errors import UserError

_TIMEOUT_S = 20


def api_key(variable: str | None) -> str | None:
    """The key in this environment variable; None where none is named.

    Raises:
        UserError: The variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(f"--api-key-env {variable}: this variable is not set")
    return key


def described_model(base_url: str, model: str, key: str | None) -> dict[str, Any]:
    """What GET /models says of a model, such as `max_model_len`; {} if the endpoint has no such list.

    Raises:
        UserError: The endpoint does not answer, refuses the key, or does not list the model.
    """
    models = _listed(base_url, key)
    if models is None:
        return {}
    for each in models:
        if each.get("id") == model:
            return each
    names = ", ".join(sorted(str(each.get("id")) for each in models)) or "none"
    raise UserError(f"--model {model}: {base_url} has no such model; it lists {names}")


def _listed(base_url: str, key: str | None) -> list[dict[str, Any]] | None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(f"{base_url}/models", headers=headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            listed = json.load(answer)["data"]
            return [each for each in listed if isinstance(each, dict)]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise UserError(
                f"{base_url} refuses the request ({error.code}); --api-key-env names the variable with its key"
            ) from None
        if error.code in (404, 405):
            return None
        raise UserError(f"{base_url}/models answers with status {error.code}") from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise UserError(f"--base-url {base_url} cannot be reached: {reason}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{base_url}/models is no list of models; --base-url is the address before /chat/completions, such as "
            "http://127.0.0.1:8000/v1"
        ) from None
