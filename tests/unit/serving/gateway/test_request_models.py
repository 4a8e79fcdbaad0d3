"""Bodies of requests: whatever comes is read within the limits, or refused by the field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.serving.gateway.standin import QUESTION, refused
from zephyr_ray.serving.gateway.errors import ApiError
from zephyr_ray.serving.gateway.request_models import ChatCompletionBody, CompletionBody, Limits, load_json, parse

LIMITS = Limits(max_tokens=100, n=4)
CHAT = {"model": "tiny", "messages": QUESTION}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
JSON = st.recursive(
    SCALARS | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
BODIES = (ChatCompletionBody, CompletionBody)
FIELDS = sorted({field for body in BODIES for field in (*body.model_fields, *body.without_effect)})


def chat(**fields: Any) -> dict[str, Any]:
    return parse(json.dumps({**CHAT, **fields}).encode(), ChatCompletionBody, LIMITS)


def test_a_body_goes_on_as_it_came_less_what_is_null() -> None:
    assert chat(temperature=0.5, stop=None, n=2) == {**CHAT, "temperature": 0.5, "n": 2}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"default": None}}}
    assert chat(response_format=schema)["response_format"] == schema
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert chat(messages=parts)["messages"] == parts


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 101}, "max_tokens"),
        ({"max_completion_tokens": 101}, "max_completion_tokens"),
        ({"min_tokens": 101}, "min_tokens"),
        ({"n": 5}, "n"),
        ({"n": 0}, "n"),
        ({"n": 2, "temperature": 0}, "body"),
        ({"min_tokens": 9, "max_tokens": 8}, "body"),
        ({"stream_options": {"include_usage": True}}, "body"),
        ({"top_logprobs": 2}, "body"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a.[key]"),
        ({"logit_bias": {"7": 101}}, "logit_bias.7"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"unknown": None}, "unknown"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "x"}]}, "body"),
        ({"messages": [{"role": "user", "content": "x", "weight": 1}]}, "messages.0.weight"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.parts.0.type"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content.text"),
        ({"model": ""}, "model"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as raised:
        chat(**fields)
    assert refused(raised) == (400, field)


@pytest.mark.parametrize("prompt", ["Hi", [1, 2], ["a", "b"], [[1], [2]]])
def test_a_completions_prompt_is_text_or_ids_or_lists_of_these(prompt: Any) -> None:
    body = {"model": "tiny", "prompt": prompt}
    assert parse(json.dumps(body).encode(), CompletionBody, LIMITS) == body


@pytest.mark.parametrize("prompt", ["", [], [[]], [-1], [2**31], ["a", 1], None, {"a": 1}])
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(ApiError) as raised:
        parse(json.dumps({"model": "tiny", "prompt": prompt}).encode(), CompletionBody, LIMITS)
    assert raised.value.status == 400
    assert str(raised.value.param).startswith("prompt")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "too large"),
        (b"9" * 5000, "not JSON"),
        (b"[" * 66 + b"]" * 66, "nested too deeply"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"{} {}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)
def test_what_is_no_json_for_a_model_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ApiError, match=says) as raised:
        load_json(data)
    assert raised.value.status == 400


def test_what_is_deep_but_not_too_deep_is_read() -> None:
    assert load_json(b"[" * 64 + b"]" * 64)
    assert load_json('{"é": "\\ud83d\\ude00"}'.encode()) == {"é": "😀"}
    assert load_json(b'{"a": 1, "a": 2}') == {"a": 2}


def _only_400(data: bytes) -> None:
    for model in (ChatCompletionBody, CompletionBody):
        try:
            parse(data, model, LIMITS)
        except ApiError as error:
            if error.status != 400 or not error.message or not error.body():
                raise


@given(st.binary(max_size=40))
@example(b"")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _only_400(data)


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    _only_400(json.dumps(value).encode())


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_any_value_of_any_field_is_read_or_refused(fields: dict[str, Any]) -> None:
    _only_400(json.dumps({**CHAT, **fields}).encode())
    _only_400(json.dumps({"model": "tiny", "prompt": "Hi", **fields}).encode())


@given(st.integers(1, 300), st.integers(1, 20))
def test_what_is_let_through_is_within_the_limits(max_tokens: int, n: int) -> None:
    if max_tokens <= LIMITS.max_tokens and n <= LIMITS.n:
        assert chat(max_tokens=max_tokens, n=n) == {**CHAT, "max_tokens": max_tokens, "n": n}
    else:
        with pytest.raises(ApiError):
            chat(max_tokens=max_tokens, n=n)


def test_a_long_name_of_a_field_does_not_come_back_whole() -> None:
    with pytest.raises(ApiError) as raised:
        chat(**{"x" * 100_000: 1})
    assert raised.value.param == "x" * 200
    assert raised.value.message == "x" * 200 + ": there is no such field here"
