"""The bodies of requests as pydantic models: they check a body, and a refusal names the field that is wrong.

The fields are OpenAI's, and vLLM's own where sampling needs them. What has no effect here (`no_effect`) is dropped. A
field that is in neither is refused rather than passed on: some of the engine's would let a client replace the chat
template or feed tensors.
"""

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from zephyr_ray.serving.gateway import no_effect
from zephyr_ray.serving.gateway.errors import ApiError

INT64 = 2**63 - 1
_DEPTH = 64
_FIELD = 200  # characters of a field's name in an error: a client may send any name

Text = Annotated[str, Field(max_length=4_000_000)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Body(BaseModel):
    """A part of a request. Fields without effect are dropped, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    without_effect: ClassVar[no_effect.Table] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        left = no_effect.drop(data, cls.without_effect)
        for field in left:
            if field in cls.without_effect and field not in cls.model_fields:
                raise _wrong(field, no_effect.says(cls.without_effect[field]))
        return left

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        own = handler.resolve_ref_schema(schema)
        own["properties"] = no_effect.schemas(cls.without_effect) | own["properties"]
        return schema


def _wrong(field: str, message: str) -> PydanticCustomError:
    """The error of one field that only the whole part can see."""
    return PydanticCustomError("wrong_field", message, {"field": field})


class TextPart(Body):
    without_effect = no_effect.TEXT_PART

    type: Literal["text"]
    text: Text


def _kind(content: Any) -> str:
    return "parts" if isinstance(content, list) else "text"


# A refusal is about the kind that was sent, not about each kind there is.
Content = Annotated[Annotated[Text, Tag("text")] | Annotated[list[TextPart], Tag("parts")], Discriminator(_kind)]


class Message(Body):
    without_effect = no_effect.MESSAGE

    role: Literal["system", "developer", "user", "assistant"]
    """`developer` is OpenAI's newer name of `system`."""
    content: Content | None = None
    """Only the assistant's may be null, as an answer without text is."""

    @model_validator(mode="after")
    def _as_in_training(self) -> "Message":
        if self.role == "developer":
            self.role = "system"
        if self.content is None:
            if self.role != "assistant":
                raise _wrong("content", "give a text")
            self.content = ""
        return self


class StreamOptions(Body):
    without_effect = no_effect.STREAM_OPTIONS

    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchema(Body):
    name: Annotated[str, Field(max_length=256)]
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self


class Sampling(Body):
    """What chat and completion requests have in common."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1, le=INT64)
    min_tokens: int | None = Field(None, ge=0, le=INT64)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    """Below this, a logit divided by it is no number any more, and a grammar's next token none of its own."""
    seed: int | None = Field(None, ge=0, le=INT64)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=64)] | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Bias] | None = None
    return_token_ids: bool | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _check_together(self) -> "Sampling":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream=true")
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens is above max_tokens")
        if self.temperature == 0 and (self.n or 1) > 1:
            raise ValueError("n above 1 needs a temperature above 0: greedy answers are all the same")
        return self


class ChatCompletionBody(Sampling):
    """The body of POST /v1/chat/completions."""

    without_effect = no_effect.CHAT

    messages: Annotated[list[Message], Field(min_length=1, max_length=2000)]
    max_completion_tokens: int | None = Field(None, ge=1, le=INT64)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @model_validator(mode="after")
    def _check_chat(self) -> "ChatCompletionBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs=true")
        if self.messages[-1].role == "assistant":
            raise ValueError("messages must not end with the assistant's: there would be nothing to answer")
        return self


TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class CompletionBody(Sampling):
    """The body of POST /v1/completions."""

    without_effect = no_effect.COMPLETION

    prompt: (
        Annotated[Text, Field(min_length=1)]
        | TokenIds
        | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=64)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=64)]
    )
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20)


class Limits(BaseModel):
    """What one request may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    body_bytes: int = Field(1_000_000, ge=1_000)
    """Largest body of a request."""
    max_tokens: int = Field(4096, ge=1)
    """Longest answer: more is refused, and a request that names no length gets what the context leaves, up to this."""
    n: int = Field(16, ge=1)
    """Answers per request."""
    requests_per_minute: int = Field(0, ge=0)
    """Requests per key and minute; 0 for no limit."""
    timeout_s: float = Field(600, gt=0)
    """How long a request may take, waiting included."""


def parse(data: bytes, model: type[Sampling], limits: Limits) -> dict[str, Any]:
    """The body as the engine gets it.

    Raises:
        ApiError: Status 400, naming the field.
    """
    raw = load_json(data)
    try:
        body = model.model_validate(raw)
    except ValidationError as error:
        raise refusal(error) from None
    checked = body.model_dump(exclude_none=True, by_alias=True)
    _limit(checked, limits)
    return checked


def load_json(data: bytes) -> Any:
    """JSON of UTF-8 text with finite numbers, whole characters and bounded depth.

    Raises:
        ApiError: Status 400.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        for text in _strings(value, 0):
            text.encode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: {error}") from None
    except UnicodeEncodeError:
        raise ApiError(400, "a text in the body has half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _strings(value: Any, depth: int) -> Iterator[str]:
    if depth > _DEPTH:
        raise RecursionError
    if isinstance(value, str):
        yield value
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, depth + 1)


def refusal(error: ValidationError) -> ApiError:
    """What is wrong with the body, in one line, and the field it is about."""
    first = error.errors(include_url=False)[0]
    named = (first["ctx"]["field"],) if first["type"] == "wrong_field" else ()
    field = ".".join(str(part) for part in (*first["loc"], *named))[:_FIELD] or "body"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such field here"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ApiError(400, f"{field}: {message}{more}", field)


def _limit(body: dict[str, Any], limits: Limits) -> None:
    for field in ("max_tokens", "max_completion_tokens", "min_tokens"):
        if body.get(field, 0) > limits.max_tokens:
            raise ApiError(400, f"{field}: at most {limits.max_tokens} here, not {body[field]}", field)
    if body.get("n", 1) > limits.n:
        raise ApiError(400, f"n: at most {limits.n} here, not {body['n']}", "n")
