"""Load a model's tokenizer once per worker process, and encode rows of messages with it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.model import Chat
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.schemas import Dropped, Reason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizerSource:
    """Where a tokenizer comes from; small enough to be pickled with every task."""

    model: ModelSource
    chat: Chat

    def load(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded once per process.

        Raises:
            UserError: There is no tokenizer, or it does not fit the recipe.
        """
        return _load(self.model, self.chat)

    def encode_each(self, encode: Callable[..., Sequence[Any]], rows: Sequence[Any]) -> list[Any]:
        """`encode(tokenizer, rows, tokenization)`, with a `Dropped` for each row that the template refuses."""
        tokenizer, tokenization = self.load(), self.chat.tokenization
        try:
            return list(encode(tokenizer, rows, tokenization))
        except jinja2.TemplateError:
            return [_encode_one(encode, tokenizer, row, tokenization) for row in rows]


def _encode_one(encode: Callable[..., Sequence[Any]], tokenizer: Any, row: Any, tokenization: str) -> Any:
    try:
        (encoded,) = encode(tokenizer, [row], tokenization)
    except jinja2.TemplateError as error:  # raised by templates for unknown roles
        return Dropped(Reason.WRONG_ROLES, f"the chat template refuses these messages: {error}")
    return encoded


@functools.lru_cache(maxsize=2)
def _load(model: ModelSource, chat: Chat) -> PreTrainedTokenizerBase:
    # A Ray task has one CPU; the tokenizer's threads would take the CPUs of other tasks.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return load_tokenizer(model.without_weights(), chat, model.revision)
