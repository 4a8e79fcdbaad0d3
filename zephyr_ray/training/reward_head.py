"""A language model with a scalar head: the reward of a conversation is read at its last token.

It is transformers' own sequence classifier with one output, so that its checkpoint loads anywhere. transformers reads
the last token that is not padding, vLLM the last one: the two are the same because no conversation ends with the token
that pads here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from zephyr_ray import chat_template
from zephyr_ray.answers import end_tokens
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from zephyr_ray.config.model import ModelSection

HEAD = "score.weight"
_EXAMPLE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def load_reward_model(folder: str, section: ModelSection, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """A sequence classifier with one output, of a language model's weights and a head that is drawn by seed.

    A folder that holds a reward model keeps its head.

    Raises:
        UserError: The folder holds no model that loads, or its architecture has no such classifier.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.integrations import is_deepspeed_zero3_enabled

    from zephyr_ray.training.model import restore_buffers

    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=1,
            dtype=dtype,
            attn_implementation=section.attn_implementation,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"model {folder} does not load: {' '.join(str(error).split())[:300]}") from None
    missing = set(info["missing_keys"])
    if missing - {HEAD} or not hasattr(model, "score"):
        lacks = ", ".join(sorted(missing - {HEAD})) or HEAD
        raise UserError(f"model {folder} cannot be made a reward model: it lacks {lacks[:200]}")
    if missing:
        draw_head(model, seed)
    if is_deepspeed_zero3_enabled():
        restore_buffers(model.base_model)  # made by its class alone: the classifier's would shard it anew
    return model


def draw_head(model: Any, seed: int) -> None:
    """Draws the head's weights, the same on every machine: normal, with the model's own `initializer_range`."""
    weight = model.score.weight
    config = model.config.get_text_config()
    shape, noise = (1, config.hidden_size), torch.Generator().manual_seed(seed)
    drawn = torch.randn(shape, generator=noise) * getattr(config, "initializer_range", 0.02)
    with torch.no_grad(), _whole(weight):
        if weight.numel():
            weight.copy_(drawn)


def _whole(weight: Any) -> contextlib.AbstractContextManager[None]:
    """A weight that ZeRO-3 has sharded is whole inside, and what the first rank writes is every rank's afterwards."""
    if not hasattr(weight, "ds_id"):
        return contextlib.nullcontext()
    import deepspeed

    gathered: contextlib.AbstractContextManager[None] = deepspeed.zero.GatheredParameters([weight], modifier_rank=0)
    return gathered


def set_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a tokenizer whose padding token may end a conversation another one, of those that it has.

    Raises:
        UserError: It has none.
    """
    ends = {*end_tokens(tokenizer), *whole_ending(tokenizer)[-1:]}
    if tokenizer.pad_token_id not in ends:
        return
    named = [tokenizer.unk_token_id, tokenizer.bos_token_id]
    others = [number for number in [*named, *sorted(tokenizer.added_tokens_decoder)] if number is not None]
    free = next((number for number in others if number not in ends), None)
    if free is None:
        raise UserError(
            f"the tokenizer of model {tokenizer.name_or_path} pads with the token that ends a conversation, where a "
            "reward model is read, and has no other control token; add a padding token to it"
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free)


def whole_ending(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the chat template writes behind the end-of-sequence token of a conversation's last answer, as ids; empty
    where it writes none of the two."""
    ids = chat_template.encode(tokenizer, _EXAMPLE, add_generation_prompt=False)
    eos = tokenizer.eos_token_id
    return ids[len(ids) - ids[::-1].index(eos) :] if eos in ids else []


def with_ending(completion: list[int], eos: int, ending: list[int]) -> list[int]:
    """A completion of `tokenized` as the template writes it in a whole conversation, which is what is judged later.

    `tokenized` leaves out what follows the last answer's end, and in the legacy way adds an end behind it.

    Args:
        completion: Token ids; without an end where they were cut to length, and then they stay as they are.
        eos: The end-of-sequence token.
        ending: `whole_ending` of the tokenizer.
    """
    if completion[-1] != eos:
        return completion
    legacy = [eos, *ending, eos]
    return completion[:-1] if completion[-len(legacy) :] == legacy else [*completion, *ending]
