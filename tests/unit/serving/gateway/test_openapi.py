"""The endpoint's own description of its routes, bodies and errors."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from zephyr_ray.serving.gateway import openapi
from zephyr_ray.serving.gateway.errors import error_body
from zephyr_ray.serving.gateway.feedback import FeedbackBody
from zephyr_ray.serving.gateway.request_models import ChatCompletionBody, CompletionBody

ROUTES = {"health": openapi.health, "models": openapi.models, "model": openapi.model, "lineage": openapi.lineage}
POSTS = {"chat": openapi.chat, "completions": openapi.completions, "feedback": openapi.feedback}


@pytest.mark.parametrize("name", [*ROUTES, *POSTS])
def test_every_error_is_documented_in_its_shape(name: str) -> None:
    route = {**ROUTES, **POSTS}[name]
    success, *errors = route["responses"]
    assert success == (201 if name == "feedback" else 200)
    assert errors == sorted(errors) or name in POSTS
    for status in errors:
        schema = route["responses"][status]["content"]["application/json"]["schema"]
        jsonschema.validate(json.loads(error_body(status, "m")), schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"detail": "m"}, schema)


@pytest.mark.parametrize(
    ("route", "model"),
    [(openapi.chat, ChatCompletionBody), (openapi.completions, CompletionBody), (openapi.feedback, FeedbackBody)],
)
def test_a_body_is_documented_with_all_its_fields_in_place(route: dict[str, Any], model: Any) -> None:
    schema = route["openapi_extra"]["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in json.dumps(schema)
    assert set(schema["properties"]) == {*model.model_fields, *getattr(model, "without_effect", {})}
    assert schema["additionalProperties"] is False
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", POSTS)
def test_a_post_can_be_refused_for_its_size_its_kind_and_its_key(name: str) -> None:
    assert {400, 401, 413, 415, 429} <= set(POSTS[name]["responses"])
