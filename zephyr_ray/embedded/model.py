"""The embedded world's raw model in a Hugging Face folder: tokenizer, chat template, random weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zephyr_ray import chat_template
from zephyr_ray.config.model import Chat
from zephyr_ray.embedded import conversations, world

if TYPE_CHECKING:
    from transformers import MistralForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
_MAX_POSITIONS = 1024
_HEAD_DIM = 32  # the smallest that vLLM's CPU attention supports
# For a narrow model and texts of a few dozen tokens; Mistral has 0.02 and 10000.
_INITIALIZER_RANGE = 0.05
_ROPE_THETA = 1000.0
_TOKENIZER_DIALOGUES = 4_000
_PIECES = r"""[0-9]|[,:;.!?]+[ ]?|[ ]?\p{L}+|\n|[ ]?[^\p{L}0-9,:;.!?\n]+"""
"""A space belongs to the punctuation before it rather than to the word after it, so that a word is the same token at
every position of a list and of an answer."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model and of the text that its tokenizer is trained on."""

    vocab_size: int = 640
    """Entries of the byte-level BPE tokenizer."""
    hidden_size: int = 128
    """Width of the Mistral-architecture model."""
    layers: int = 3
    heads: int = 8
    """Attention heads, each 32 wide (half as many key-value heads)."""
    dialogues: int = 24_000
    """Demonstrations of the world; the tokenizer sees the first 4,000 of them."""
    flawed: float = 0.4
    """Share of demonstrations with a flaw."""


def base(folder: str, seed: int, **sizes: Any) -> None:
    """For `sft.base.function: zephyr_ray.embedded.model:base` in a recipe; options are fields of `Sizes`."""
    make_base(folder, Sizes(**sizes), seed)


def conversations_base(folder: str, seed: int, vocab_size: int, hidden_size: int, layers: int, heads: int) -> None:
    """As `base`, with a tokenizer trained on the world's conversations, whose names it has as whole words."""
    sizes = Sizes(vocab_size, hidden_size, layers, heads)
    said = (message["content"] for each in conversations.dialogues(_TOKENIZER_DIALOGUES, seed) for message in each)
    make_base(folder, sizes, seed, said)


def make_base(folder: str | Path, sizes: Sizes, seed: int, texts: Iterable[str] | None = None) -> None:
    """Writes a randomly initialised Mistral-architecture model and a tokenizer trained on texts.

    The folder loads in transformers and in vLLM. The same arguments give the same bytes.

    Args:
        folder: Where to.
        sizes: Of the model and the tokenizer.
        seed: Of the weights, and of the world's dialogues.
        texts: What the tokenizer is trained on. None: the world's dialogues.
    """
    tokenizer = train_tokenizer(sizes, seed, texts)
    model = init_model(sizes, tokenizer, seed)
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_tokenizer(sizes: Sizes, seed: int, texts: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: it can encode any text, each digit is one token, and no BOS is added. The arguments
    are those of `make_base`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=sizes.vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(_training_texts(sizes, seed) if texts is None else texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        model_max_length=_MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = chat_template.template_text(Chat())
    return tokenizer


def init_model(sizes: Sizes, tokenizer: PreTrainedTokenizerFast, seed: int) -> MistralForCausalLM:
    """The model with random float32 weights; torch's global random state does not change."""
    import torch
    from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = MistralConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=_intermediate_size(sizes.hidden_size),
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        head_dim=_HEAD_DIM,
        num_key_value_heads=max(1, sizes.heads // 2),
        max_position_embeddings=_MAX_POSITIONS,
        sliding_window=None,
        tie_word_embeddings=True,
        initializer_range=_INITIALIZER_RANGE,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
        **tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MistralForCausalLM(config).float()
    model.generation_config = GenerationConfig(**tokens)
    return model


def _intermediate_size(hidden_size: int) -> int:
    """About Mistral's ratio of 8/3, rounded up to a multiple of 32."""
    return -(-hidden_size * 8 // 3 // 32) * 32


def _training_texts(sizes: Sizes, seed: int) -> Iterator[str]:
    count = min(sizes.dialogues, _TOKENIZER_DIALOGUES)
    for row in world.dialogues(count, seed, sizes.flawed):
        for message in row["messages"]:
            yield message["content"]
