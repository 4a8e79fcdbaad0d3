"""How long an answer may be whose request names no length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams

from zephyr_ray.serving.open_length import leave_open, set_open_lengths


def asked_for(prompt: int, body: dict[str, Any], usual: dict[str, Any] | None = None) -> int | None:
    """The length that an engine with a context of 100 tokens is asked for, after a prompt of so many."""
    asked: list[int | None] = []
    config = SimpleNamespace(
        max_model_len=100, is_encoder_decoder=False, get_diff_sampling_param=lambda: usual or {"temperature": 0.5}
    )
    client: Any = SimpleNamespace(
        model_config=config, generate=lambda prompt, params, name: asked.append(params.max_tokens)
    )
    set_open_lengths(client)
    params = SamplingParams(
        max_tokens=body["max_tokens"], min_tokens=body.get("min_tokens", 0), extra_args=body.get("vllm_xargs")
    )
    client.generate({"type": "token", "prompt_token_ids": [5] * prompt}, params, "request")
    (length,) = asked
    return length


@pytest.mark.parametrize(
    ("prompt", "bound", "fields", "usual", "length"),
    [
        (30, 50, {}, None, 50),
        (30, 4096, {}, None, 70),
        (90, 50, {}, None, 10),
        (99, 50, {}, None, 1),
        (30, 50, {}, {"max_tokens": 20}, 20),
        (30, 50, {}, {"max_tokens": 4096}, 50),
        (30, 50, {"min_tokens": 25}, {"max_tokens": 20}, 25),
    ],
)
def test_an_open_length_is_what_the_context_leaves_up_to_the_bound(
    prompt: int, bound: int, fields: dict[str, Any], usual: dict[str, Any] | None, length: int
) -> None:
    body = dict(fields)
    leave_open(body, bound)
    assert asked_for(prompt, body, usual) == length


def test_a_length_that_the_client_named_stays() -> None:
    assert asked_for(30, {"max_tokens": 7}, {"max_tokens": 5}) == 7
    assert asked_for(30, {"max_tokens": 7, "vllm_xargs": {"other": 1}}) == 7
