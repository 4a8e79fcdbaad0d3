"""Token ids of one pair or dialogue, with a call of the template for each text: what `encode_pairs` and
`encode_dialogues` give for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr_ray.chat_template import (
    EncodedDialogue,
    EncodedPair,
    Message,
    _common_prefix,
    _normalize_end,
    _split_prompt,
    encode,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    chosen: Sequence[Message],
    rejected: Sequence[Message],
    tokenization: str,
) -> EncodedPair:
    """Token ids of a preference pair, split where prompt and completions part.

    The boundary is the longest common prefix of the prompt's own ids and both whole conversations' ids, so that a
    token that spans prompt and completion belongs to the completion.
    """
    prompt_ids = encode(tokenizer, prompt, add_generation_prompt=True)
    whole = [
        _normalize_end(tokenizer, encode(tokenizer, [*prompt, *completion], add_generation_prompt=False), tokenization)
        for completion in (chosen, rejected)
    ]
    return _split_prompt(prompt_ids, *whole)


def encode_dialogue(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tokenization: str
) -> EncodedDialogue:
    """Token ids of a dialogue. The assistant's tokens run from the end of its generation prompt to the turn's end."""
    ids = _normalize_end(tokenizer, encode(tokenizer, messages, add_generation_prompt=False), tokenization)
    mask = [0] * len(ids)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = _common_prefix(encode(tokenizer, messages[:index], add_generation_prompt=True), ids)
        upto = encode(tokenizer, messages[: index + 1], add_generation_prompt=False)
        stop = _common_prefix(_normalize_end(tokenizer, upto, tokenization), ids)
        mask[start:stop] = [1] * (stop - start)
    return EncodedDialogue(ids, mask)
