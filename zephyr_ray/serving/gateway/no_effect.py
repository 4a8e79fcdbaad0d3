"""Fields of OpenAI's and vLLM's requests that change nothing here, with the values at which they do not.

Clients send them because their library knows them. At these values, and at null, they are dropped; another value would
change the answer, and is refused by the field's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import EllipsisType
from typing import Any

ANY = ...
"""Whatever the value is, the answer is the same."""

Table = Mapping[str, list[Any] | EllipsisType]
"""Values without effect by field; null is one of every field's."""

_SAMPLING: Table = {
    "user": ANY,
    "safety_identifier": ANY,
    "prompt_cache_key": ANY,
    "prompt_cache_options": ANY,
    "prompt_cache_retention": ANY,
    "metadata": ANY,
    "store": ANY,
    "service_tier": ANY,
    "stop": [[], "", [""]],
    "logit_bias": [{}],
    "best_of": [1],
    "use_beam_search": [False],
    "length_penalty": [1],
    "priority": [0],
    "bad_words": [[]],
    "allowed_token_ids": [],
    "structured_outputs": [],
    "prompt_logprobs": [],
    "truncate_prompt_tokens": [],
    "include_stop_str_in_output": [False],
    "skip_special_tokens": [True],
    "spaces_between_special_tokens": [True],
}

CHAT: Table = {
    **_SAMPLING,
    "tools": [[]],
    "tool_choice": ["none", "auto"],
    "parallel_tool_calls": ANY,
    "functions": [[]],
    "function_call": ["none", "auto"],
    "modalities": [["text"]],
    "audio": [],
    "prediction": ANY,
    "moderation": [],
    "web_search_options": [],
    "reasoning_effort": ["none"],
    "verbosity": ["medium"],
    "logprobs": [False],
    "top_logprobs": [0],
    "echo": [False],
    "documents": [[]],
    "chat_template": [],
    "chat_template_kwargs": [{}],
    "add_special_tokens": [False],
    "add_generation_prompt": [True],
    "continue_final_message": [False],
}

COMPLETION: Table = {
    **_SAMPLING,
    "suffix": [""],
    "logprobs": [False],
    "prompt_embeds": [],
    "add_special_tokens": [True],
}

MESSAGE: Table = {
    "name": ANY,  # the chat template has no place for it
    "type": ["text", "message"],
    "parsed": ANY,  # OpenAI's client adds what it read from the content
    "refusal": [""],
    "annotations": [[]],
    "audio": [],
    "function_call": [],
    "tool_calls": [[]],
    "reasoning": [],
    "reasoning_content": [],
}

TEXT_PART: Table = {"cache_control": ANY}

STREAM_OPTIONS: Table = {"include_obfuscation": ANY}


def drop(part: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The part of a request without the fields that have no effect at their values."""
    return {field: value for field, value in part.items() if field not in table or not _is_one(value, table[field])}


def _is_one(value: Any, values: list[Any] | EllipsisType) -> bool:
    if value is None or values is ANY:
        return True
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)


def says(values: list[Any] | EllipsisType) -> str:
    """Why another value of a field is refused."""
    taken = "" if values is ANY or not values else f", or give {' or '.join(map(json.dumps, values))}"
    return f"it is not supported here; leave it out{taken}"


def schemas(table: Table) -> dict[str, Any]:
    """The JSON schemas of the fields, by name."""
    return {
        field: {"description": "Has no effect.", **({} if values is ANY else {"enum": [*values, None]})}
        for field, values in table.items()
    }
