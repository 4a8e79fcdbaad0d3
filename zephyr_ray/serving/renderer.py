"""Renders prompts to the token ids that training saw, each one the model's own, in place of vLLM's renderer."""

from __future__ import annotations

from typing import Any

from vllm.entrypoints.chat_utils import ChatCompletionMessageParam, ConversationMessage, parse_chat_messages
from vllm.exceptions import VLLMValidationError
from vllm.inputs import TextPrompt, TokensPrompt
from vllm.renderers.hf import HfRenderer
from vllm.renderers.inputs.preprocess import parse_dec_only_prompt
from vllm.renderers.params import ChatParams, TokenizeParams
from vllm.utils.async_utils import make_async

from zephyr_ray import chat_template


class TrainingRenderer(HfRenderer):
    """vLLM's renderer with `zephyr_ray.chat_template` in place of a template call and a tokenizer call of its own.

    Two things follow: a prompt has the ids that training gave it, and a control string that a user typed stays text.
    A third is added: an id without a row in the embedding is refused. vLLM 0.29 lets through the one after the
    vocabulary's last (and any that the tokenizer alone knows), which ends its engine.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._render_async = make_async(self.render_messages, executor=self._executor)

    def render_messages(
        self, messages: list[ChatCompletionMessageParam], params: ChatParams
    ) -> tuple[list[ConversationMessage], Any]:
        conversation, _, _ = parse_chat_messages(messages, self.model_config, content_format="string")
        plain = [{"role": message["role"], "content": message.get("content") or ""} for message in conversation]
        ids = chat_template.encode(self.get_tokenizer(), plain, add_generation_prompt=True)  # type: ignore[arg-type]
        return conversation, parse_dec_only_prompt(ids)

    async def render_messages_async(
        self, messages: list[ChatCompletionMessageParam], params: ChatParams
    ) -> tuple[list[ConversationMessage], Any]:
        return await self._render_async(messages, params)

    def _tokenize_prompt(self, prompt: TextPrompt, params: TokenizeParams) -> TokensPrompt:
        special = bool(params.get_encode_kwargs().get("add_special_tokens", True))
        ids = chat_template.encode_text(self.get_tokenizer(), prompt["prompt"], add_special_tokens=special)
        return self._build_tokens_prompt(ids, prompt, offset_mapping=None)

    def _tokenize_singleton_prompt(self, prompt: Any, params: TokenizeParams) -> Any:
        self._refuse_strange_ids(prompt)  # before they are turned into text, where the answer echoes the prompt
        tokenized = super()._tokenize_singleton_prompt(prompt, params)
        self._refuse_strange_ids(tokenized)
        return tokenized

    async def _tokenize_singleton_prompt_async(self, prompt: Any, params: TokenizeParams) -> Any:
        self._refuse_strange_ids(prompt)
        tokenized = await super()._tokenize_singleton_prompt_async(prompt, params)
        self._refuse_strange_ids(tokenized)
        return tokenized

    def _refuse_strange_ids(self, prompt: Any) -> None:
        """Raises VLLMValidationError, which the client gets as status 400."""
        ids, size = prompt.get("prompt_token_ids") or (0,), self.model_config.get_vocab_size()
        strange = max(ids) if max(ids) >= size else min(ids)
        if not 0 <= strange < size:
            raise VLLMValidationError(
                f"the prompt has the token id {strange}; this model's ids are 0 to {size - 1}", parameter="prompt"
            )
