"""What the OpenAPI document says of each route: bodies, answers, errors."""

from typing import Any

from zephyr_ray.serving.gateway.feedback import FeedbackBody
from zephyr_ray.serving.gateway.request_models import ChatCompletionBody, CompletionBody

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MEANING = {
    400: "The body is wrong; the message names the field",
    401: "No valid API key",
    404: "No such model or route, or nothing to say of it",
    408: "The request took longer than it may",
    413: "The body is too large",
    415: "The body is not said to be JSON",
    429: "Too many requests; see Retry-After",
    503: "The model is not deployed or not ready, or the choice could not be stored",
}


def _answers(success: int, meaning: str, content: str, *errors: int) -> dict[int | str, dict[str, Any]]:
    answers: dict[int | str, dict[str, Any]] = {success: {"description": meaning, "content": {content: {}}}}
    for status in errors:
        answers[status] = {"description": _MEANING[status], "content": {"application/json": {"schema": ERROR}}}
    return answers


def _post(body: Any, success: int, meaning: str, *errors: int) -> dict[str, Any]:
    schema = body.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    request = {"required": True, "content": {"application/json": {"schema": _inline(schema, definitions)}}}
    answers = _answers(success, meaning, "application/json", 400, 401, 413, 415, 429, *errors)
    return {"responses": answers, "openapi_extra": {"requestBody": request}, "status_code": success}


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its definitions in place, so that each route's stands by itself."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
        return {key: _inline(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    return schema


health: dict[str, Any] = {"responses": _answers(200, "The gateway answers", "application/json")}
models: dict[str, Any] = {"responses": _answers(200, "The models", "application/json", 401, 429)}
model: dict[str, Any] = {"responses": _answers(200, "One model", "application/json", 401, 404, 429)}
lineage: dict[str, Any] = {"responses": _answers(200, "What made the model", "application/json", 401, 404, 429, 503)}
chat: dict[str, Any] = _post(ChatCompletionBody, 200, "The answer, or with stream its events", 404, 408, 503)
completions: dict[str, Any] = _post(CompletionBody, 200, "The answer, or with stream its events", 404, 408, 503)
feedback: dict[str, Any] = _post(FeedbackBody, 201, "The choice is stored", 404, 503)
