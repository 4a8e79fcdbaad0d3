"""Fields that change nothing: dropped at the values that change nothing, refused by name at others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from tests.unit.serving.gateway.standin import QUESTION, refused
from zephyr_ray.serving.gateway import no_effect
from zephyr_ray.serving.gateway.errors import ApiError
from zephyr_ray.serving.gateway.request_models import ChatCompletionBody, CompletionBody, Limits, Sampling, parse

CHAT = {"model": "tiny", "messages": QUESTION}
TEXT = {"model": "tiny", "prompt": "Hi"}
TABLES: list[tuple[type[Sampling], dict[str, Any]]] = [(ChatCompletionBody, CHAT), (CompletionBody, TEXT)]
OTHER = {"none of these": 1}


def parsed(body: dict[str, Any], model: type[Sampling] = ChatCompletionBody) -> dict[str, Any]:
    return parse(json.dumps(body).encode(), model, Limits())


@pytest.mark.parametrize(("model", "body"), TABLES)
def test_values_without_effect_are_dropped_one_by_one_and_together(model: type[Sampling], body: dict[str, Any]) -> None:
    table = model.without_effect
    lasts: dict[str, Any] = {}
    for field, values in table.items():
        for value in [None, OTHER] if values is no_effect.ANY else [None, *values]:
            assert parsed({**body, field: value}, model) == body, (field, value)
            lasts[field] = value
    assert parsed({**body, **lasts}, model) == body


@pytest.mark.parametrize(("model", "body"), TABLES)
def test_other_values_are_refused_by_the_fields_name(model: type[Sampling], body: dict[str, Any]) -> None:
    for field, values in model.without_effect.items():
        if values is not no_effect.ANY and field not in model.model_fields:
            with pytest.raises(ApiError) as raised:
                parsed({**body, field: OTHER}, model)
            assert refused(raised) == (400, field)
            assert raised.value.message.startswith(f"{field}: it is not supported here; leave it out")


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 1), ("logprobs", True), ("stop", ["x"]), ("logit_bias", {"7": 1}), ("response_format", {"type": "text"})],
)
def test_what_has_an_effect_goes_on(field: str, value: Any) -> None:
    assert parsed({**CHAT, field: value}) == {**CHAT, field: value}
    assert parsed({**TEXT, "logprobs": 0}, CompletionBody) == {**TEXT, "logprobs": 0}  # not false: one log-prob a token


@pytest.mark.parametrize("field", ["refusal", "annotations", "audio", "function_call", "tool_calls", "reasoning"])
def test_a_message_with_an_effect_that_training_has_no_place_for_is_refused(field: str) -> None:
    with pytest.raises(ApiError) as raised:
        parsed({**CHAT, "messages": [{"role": "assistant", "content": "x", field: OTHER}, *QUESTION]})
    assert refused(raised) == (400, f"messages.0.{field}")


def test_the_message_that_openais_client_received_can_be_sent_back() -> None:
    """vLLM's message, as `openai` reads it and writes it into the next request."""
    nulls = ("refusal", "annotations", "audio", "function_call", "reasoning")
    message = {"role": "assistant", "content": "Yes", **dict.fromkeys(nulls)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    received = ChatCompletion.model_validate(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    )
    sent = received.choices[0].message.model_dump(exclude_unset=True)
    assert set(sent) == {"role", "content", *nulls}
    messages = [*QUESTION, sent, *QUESTION]
    assert parsed({**CHAT, "messages": messages})["messages"] == [
        *QUESTION,
        {"role": "assistant", "content": "Yes"},
        *QUESTION,
    ]


@pytest.mark.parametrize(
    ("message", "taken"),
    [
        ({"role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be brief."}),
        ({"role": "user", "content": "Hi", "type": "text"}, {"role": "user", "content": "Hi"}),
        ({"role": "user", "content": "Hi", "name": "Ada"}, {"role": "user", "content": "Hi"}),
        ({"role": "assistant", "content": None, "tool_calls": []}, {"role": "assistant", "content": ""}),
        (
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ),
    ],
)
def test_messages_as_clients_write_them(message: dict[str, Any], taken: dict[str, Any]) -> None:
    assert parsed({**CHAT, "messages": [message, *QUESTION]})["messages"] == [taken, *QUESTION]


def test_the_guide_lists_every_field_without_effect() -> None:
    guide = (Path(__file__).parents[4] / "docs" / "serving.md").read_text("utf-8")
    tables = (no_effect.CHAT, no_effect.COMPLETION, no_effect.MESSAGE, no_effect.TEXT_PART, no_effect.STREAM_OPTIONS)
    missing = {field for table in tables for field in table if f"`{field}`" not in guide}
    assert not missing


RECORDED = Path(__file__).parents[3] / "integration" / "chat" / "requests" / "lm_eval.json"


def test_requests_of_lm_eval_go_on_whole() -> None:
    for request in json.loads(RECORDED.read_text("utf-8"))["requests"]:
        body = request["body"]
        assert parsed(body, ChatCompletionBody if "messages" in body else CompletionBody) == body
