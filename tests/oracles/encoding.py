"""Token ids of one pair or dialogue, with a call of the template for each text: what `encode_pairs` and
`encode_dialogues` give for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zephyr_ray.answers import EncodedDialogue
from zephyr_ray.chat_template import (
    EncodedPair,
    Message,
    _normalize_end,
    _split_prompt,
    common_prefix,
    encode,
    render,
    without_control_strings,
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
    """Token ids of a dialogue under Zephyr's template. The assistant's tokens run from the end of its generation prompt
    to the turn's end, which in zephyr_legacy is behind the newline."""
    legacy = tokenization == "zephyr_legacy"
    ids = _ids(tokenizer, messages, add_generation_prompt=False, keep_end=legacy)
    mask = [0] * len(ids)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _ids(tokenizer, messages[:index], add_generation_prompt=True, keep_end=True)
        upto = _ids(tokenizer, messages[: index + 1], add_generation_prompt=False, keep_end=legacy)
        start, stop = common_prefix(prompt, ids), common_prefix(upto, ids)
        mask[start:stop] = [1] * (stop - start)
    if legacy:
        return EncodedDialogue([*ids, tokenizer.eos_token_id], [*mask, 1])
    return EncodedDialogue(ids, mask)


def _ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool, keep_end: bool
) -> list[int]:
    """Token ids of a conversation, without the newline behind its end-of-sequence string unless that is kept."""
    (broken,) = without_control_strings(tokenizer, [messages])
    text = render(tokenizer, broken, add_generation_prompt=add_generation_prompt)
    if not keep_end and text.rstrip().endswith(str(tokenizer.eos_token)):
        text = text.rstrip()
    return [
        token for piece in text.split("\ue0f8") for token in tokenizer(piece, add_special_tokens=False)["input_ids"]
    ]
