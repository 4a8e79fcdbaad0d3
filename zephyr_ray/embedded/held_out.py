"""Sample completions of held-out instructions, and compute pass rates with confidence intervals."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from zephyr_ray import chat_template

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

_Z95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


class Rate(NamedTuple):
    """A share, or a difference of two shares, with its 95 % interval."""

    mean: float
    low: float
    high: float


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[str],
    *,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> list[list[str]]:
    """Samples completions of each instruction from the model's full distribution (no top-k, no top-p).

    The random numbers depend only on the seed, the instruction and the sample's number. So neither the batch size nor
    the other instructions change a completion, unless rounding of the logits does.

    Args:
        model: The model, on any device; it is put into evaluation mode.
        tokenizer: The tokenizer, with the chat template that the model was trained on.
        instructions: One user message each.
        samples: Completions per instruction.
        temperature: 0 takes the most likely token, so that all samples of an instruction are equal.
        max_new_tokens: Longest completion, in tokens; a longer one is cut.
        batch_size: Instructions per forward pass.
        seed: Seed of the random numbers.

    Returns:
        The completions of each instruction as text, without the end-of-sequence token. Other control tokens that the
        model wrote are kept: a right answer has none.
    """
    model.eval()
    drawn = 1 if temperature == 0 else samples
    completions: list[list[str]] = []
    for start in range(0, len(instructions), batch_size):
        batch = instructions[start : start + batch_size]
        prompts = [
            chat_template.encode(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
            for text in batch
        ]
        noise = np.concatenate([_uniform_noise(seed, text, drawn, max_new_tokens) for text in batch])
        ids = _generate(model, prompts, noise, temperature, tokenizer.eos_token_id, tokenizer.pad_token_id)
        texts = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for row in range(0, len(texts), drawn):
            completions.append(texts[row : row + drawn] * (samples // drawn))
    return completions


def pass_rate(passed: ArrayLike) -> Rate:
    """The share of completions that passed, with a 95 % interval clustered by prompt.

    Samples of one prompt are alike, so prompts, not completions, are the independent units. The interval is the normal
    one around the mean of the prompts' rates, mean +- 1.96 s / sqrt(n), with their standard deviation s (n - 1 in the
    denominator) and number n; for a balanced design this is the cluster-robust interval. It is clipped to [0, 1].

    Args:
        passed: Booleans [prompts, samples].

    Raises:
        ValueError: `passed` is not a matrix with at least two prompts and one sample.
    """
    mean, low, high = _normal_interval(_rates_by_prompt(passed))
    return Rate(mean, max(0.0, low), min(1.0, high))


def difference(a: ArrayLike, b: ArrayLike) -> Rate:
    """The pass rate of `a` minus that of `b`, paired by prompt, with its 95 % interval.

    The interval is the normal one around the mean over prompts of (rate of a - rate of b), as in `pass_rate`. Prompts
    that are hard for both models cancel out.

    Args:
        a: Booleans [prompts, samples].
        b: Booleans [prompts, samples] for the same prompts in the same order; the number of samples may differ.

    Raises:
        ValueError: As for `pass_rate`, or the numbers of prompts differ.
    """
    rates_a, rates_b = _rates_by_prompt(a), _rates_by_prompt(b)
    if len(rates_a) != len(rates_b):
        raise ValueError(f"a has {len(rates_a)} prompts and b {len(rates_b)}; they are paired by prompt")
    return _normal_interval(rates_a - rates_b)


def _rates_by_prompt(passed: ArrayLike) -> np.ndarray:
    matrix = np.asarray(passed, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 2 or matrix.shape[1] < 1:
        raise ValueError(f"passed has shape {matrix.shape}; it is [prompts, samples] with two prompts or more")
    return matrix.mean(axis=1)


def _normal_interval(values: np.ndarray) -> Rate:
    mean = float(values.mean())
    half = _Z95 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Rate(mean, mean - half, mean + half)


def _uniform_noise(seed: int, instruction: str, samples: int, tokens: int) -> np.ndarray:
    """Random numbers in [0, 1), [samples, tokens]; those of a sample do not depend on the number of samples."""
    digest = hashlib.blake2b(f"{seed} {instruction}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    return rng.random((samples, tokens))


def _generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    noise: np.ndarray,
    temperature: float,
    eos: int,
    pad: int,
) -> list[list[int]]:
    """Continues each prompt `len(noise) / len(prompts)` times, to the end-of-sequence token or `noise.shape[1]` tokens.

    A prompt's keys and values are computed once for all its samples, and a finished completion leaves the batch.
    """
    import torch
    from transformers import DynamicCache

    each = len(noise) // len(prompts)
    completions: list[list[int]] = [[] for _ in range(len(noise))]
    with torch.inference_mode():
        ids, mask = _pad_left(prompts, pad, model.device)
        cache = DynamicCache(config=model.config)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = _last_logits(model, ids, mask, positions, cache).repeat_interleave(each, 0)
        mask = mask.repeat_interleave(each, 0)
        cache.batch_repeat_interleave(each)
        alive = torch.arange(len(noise))
        for step in range(noise.shape[1]):
            token = _choose_tokens(logits, torch.from_numpy(noise[alive.numpy(), step]), temperature)
            going = token != eos
            alive, token = alive[going.cpu()], token[going]
            for row, new in zip(alive.tolist(), token.tolist(), strict=True):
                completions[row].append(new)
            if len(alive) == 0 or step + 1 == noise.shape[1]:
                break
            cache.batch_select_indices(going)
            mask = torch.cat([mask[going], mask.new_ones(len(alive), 1)], dim=1)
            logits = _last_logits(model, token[:, None], mask, mask.sum(1, keepdim=True) - 1, cache)
    return completions


def _last_logits(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """Logits of the next token, [rows, vocabulary]; the ids are added to `cache`."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


def _choose_tokens(logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
    """Chooses one token per row: the first whose cumulative probability exceeds the row's number in [0, 1).

    The sum is in float64, so that the last tokens of a large vocabulary keep their probability.
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    target = noise.to(cumulative)[:, None] * cumulative[:, -1:]
    return (cumulative <= target).sum(-1)


def _pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows as ids and attention mask, [rows, longest], padded on the left."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
