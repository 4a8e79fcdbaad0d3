"""Which token ids of a prompt reach the engine."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm.exceptions import VLLMValidationError
from vllm.renderers.params import TokenizeParams
from vllm.utils.async_utils import make_async

from zephyr_ray.serving.renderer import TrainingRenderer

PARAMS = TokenizeParams(max_total_tokens=None)


def renderer(folder: str, vocabulary: int) -> TrainingRenderer:
    """The renderer of a model whose embedding has so many rows, without the rest of an engine's configuration."""
    made = TrainingRenderer.__new__(TrainingRenderer)
    made.tokenizer = AutoTokenizer.from_pretrained(folder)
    made.model_config = SimpleNamespace(get_vocab_size=lambda: vocabulary)  # type: ignore[assignment]
    made._tokenize_prompt_async = make_async(made._tokenize_prompt)
    made._async_tokenizer_decode = make_async(made._decode)
    return made


def tokenize(made: TrainingRenderer, prompt: Any, params: TokenizeParams = PARAMS) -> Any:
    """The ids, which both ways of asking agree on."""
    whole = made._tokenize_singleton_prompt(dict(prompt), params)
    assert asyncio.run(made._tokenize_singleton_prompt_async(dict(prompt), params)) == whole
    return whole["prompt_token_ids"]


def test_the_vocabulary_s_own_ids_pass(byte_tokenizer: str) -> None:
    assert tokenize(renderer(byte_tokenizer, 300), {"prompt_token_ids": [0, 7, 299]}) == [0, 7, 299]


@pytest.mark.parametrize("strange", [300, 301, 2**31 - 1, -1])
@pytest.mark.parametrize("echo", [False, True])
def test_an_id_outside_the_vocabulary_is_refused_by_its_number(byte_tokenizer: str, strange: int, echo: bool) -> None:
    made = renderer(byte_tokenizer, 300)
    params = TokenizeParams(max_total_tokens=None, needs_detokenization=echo)
    prompt: Any = {"prompt_token_ids": [5, strange, 6]}
    with pytest.raises(VLLMValidationError, match=rf"id {strange}; .* 0 to 299") as raised:
        made._tokenize_singleton_prompt(prompt, params)
    assert raised.value.parameter == "prompt"
    with pytest.raises(VLLMValidationError, match=rf"id {strange}; .* 0 to 299"):
        asyncio.run(made._tokenize_singleton_prompt_async(prompt, params))


def test_text_whose_ids_the_model_has_no_embedding_for_is_refused(byte_tokenizer: str) -> None:
    ids = tokenize(renderer(byte_tokenizer, 10_000), {"prompt": "pear"})
    assert tokenize(renderer(byte_tokenizer, max(ids) + 1), {"prompt": "pear"}) == ids
    with pytest.raises(VLLMValidationError, match=f"id {max(ids)}"):
        renderer(byte_tokenizer, max(ids))._tokenize_singleton_prompt({"prompt": "pear"}, PARAMS)
