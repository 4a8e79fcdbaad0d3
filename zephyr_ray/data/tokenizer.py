"""A model's tokenizer, loaded once per Ray worker process, and what it makes of rows of messages."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.recipe import Chat
from zephyr_ray.data.formats.layouts import Dropped, Reason
from zephyr_ray.pipeline.model_source import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizerSource:
    """Where a tokenizer comes from; small enough to go with every task."""

    model: ModelSource
    chat: Chat

    def load(self) -> PreTrainedTokenizerBase:
        """The tokenizer; a process loads it once.

        Raises:
            UserError: There is no tokenizer, or none that goes with the recipe.
        """
        return _load(self.model, self.chat.model_dump_json())

    def encode_each(self, encode: Callable[..., Sequence[Any]], rows: Sequence[Any]) -> list[Any]:
        """`encode(tokenizer, rows, tokenization)`; a row whose messages the template refuses is a `Dropped`."""
        tokenizer, tokenization = self.load(), self.chat.tokenization
        try:
            return list(encode(tokenizer, rows, tokenization))
        except jinja2.TemplateError:
            return [_encode_one(encode, tokenizer, row, tokenization) for row in rows]


def _encode_one(encode: Callable[..., Sequence[Any]], tokenizer: Any, row: Any, tokenization: str) -> Any:
    try:
        (encoded,) = encode(tokenizer, [row], tokenization)
    except jinja2.TemplateError as error:  # templates raise it themselves, for roles that they do not know
        return Dropped(Reason.WRONG_ROLES, f"the chat template refuses these messages: {error}")
    return encoded


@functools.lru_cache(maxsize=2)
def _load(model: ModelSource, chat: str) -> PreTrainedTokenizerBase:
    # A Ray task has one CPU: the tokenizer's own threads would take those of other tasks.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return load_tokenizer(model.without_weights(), Chat.model_validate_json(chat), model.revision)
