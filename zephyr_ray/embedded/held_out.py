"""Reads a model and held-out instructions -> sampled answers, and from which of them passed -> rates with intervals."""

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

_Z95 = 1.959963984540054  # the normal distribution has 95 % of its mass within so many standard deviations


class Rate(NamedTuple):
    """A share, or a difference of two, with the ends of its 95 % interval."""

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
    """Draws answers to each instruction from the whole distribution of the model (no top-k, no top-p).

    The random numbers are a function of the seed, the instruction and the sample's number: neither the batch size nor
    the other instructions change an answer, save where rounding of the logits tips a draw.

    Args:
        model: On any device; it is put into evaluation mode.
        tokenizer: With the chat template that the model was trained on.
        instructions: One user message each.
        samples: Answers per instruction.
        temperature: 0 takes the most likely token, so that all samples of an instruction are the same.
        max_new_tokens: Longest answer; a longer one is cut.
        batch_size: Instructions per forward pass.
        seed: Of the random numbers.

    Returns:
        For each instruction its answers as text, without the end-of-sequence token. Control tokens that the model wrote
        inside an answer are left in: they are no part of a right one.
    """
    model.eval()
    drawn = 1 if temperature == 0 else samples
    answers: list[list[str]] = []
    for start in range(0, len(instructions), batch_size):
        batch = instructions[start : start + batch_size]
        prompts = [
            chat_template.encode(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
            for text in batch
        ]
        noise = np.concatenate([_uniform(seed, text, drawn, max_new_tokens) for text in batch])
        ids = _generate(model, prompts, noise, temperature, tokenizer.eos_token_id, tokenizer.pad_token_id)
        texts = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for row in range(0, len(texts), drawn):
            answers.append(texts[row : row + drawn] * (samples // drawn))
    return answers


def pass_rate(passed: ArrayLike) -> Rate:
    """The share of answers that passed, with a 95 % interval clustered by prompt.

    Samples of one prompt are alike, so prompts, not answers, are the independent units: the interval is the normal one
    around the mean of the prompts' own rates, mean +- 1.96 s / sqrt(n), s their standard deviation (n - 1 below) and n
    their number; for a balanced design this is the cluster-robust interval. It is cut to [0, 1].

    Args:
        passed: Booleans [prompts, samples].

    Raises:
        ValueError: Not a matrix with at least two prompts and one sample.
    """
    mean, low, high = _interval(_by_prompt(passed))
    return Rate(mean, max(0.0, low), min(1.0, high))


def difference(a: ArrayLike, b: ArrayLike) -> Rate:
    """How much more often the answers of `a` pass than those of `b`, paired by prompt, with its 95 % interval.

    The normal interval around the mean over prompts of (rate of a - rate of b), as in `pass_rate`: what both models
    find hard cancels out.

    Args:
        a: Booleans [prompts, samples].
        b: Booleans [prompts, samples] for the same prompts in the same order; the number of samples may differ.

    Raises:
        ValueError: As `pass_rate`, or another number of prompts.
    """
    rates_a, rates_b = _by_prompt(a), _by_prompt(b)
    if len(rates_a) != len(rates_b):
        raise ValueError(f"a has {len(rates_a)} prompts and b {len(rates_b)}; they are paired by prompt")
    return _interval(rates_a - rates_b)


def _by_prompt(passed: ArrayLike) -> np.ndarray:
    matrix = np.asarray(passed, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 2 or matrix.shape[1] < 1:
        raise ValueError(f"passed has shape {matrix.shape}; it is [prompts, samples] with two prompts or more")
    return matrix.mean(axis=1)


def _interval(values: np.ndarray) -> Rate:
    mean = float(values.mean())
    half = _Z95 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Rate(mean, mean - half, mean + half)


def _uniform(seed: int, instruction: str, samples: int, tokens: int) -> np.ndarray:
    """Random numbers in [0, 1), [samples, tokens]; those of a sample do not depend on how many samples there are."""
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

    A prompt's keys and values are computed once for all its samples, and an answer that has ended leaves the batch.
    """
    import torch
    from transformers import DynamicCache

    each = len(noise) // len(prompts)
    answers: list[list[int]] = [[] for _ in range(len(noise))]
    with torch.inference_mode():
        ids, mask = _pad_left(prompts, pad, model.device)
        cache = DynamicCache(config=model.config)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = _last_logits(model, ids, mask, positions, cache).repeat_interleave(each, 0)
        mask = mask.repeat_interleave(each, 0)
        cache.batch_repeat_interleave(each)
        alive = torch.arange(len(noise))
        for step in range(noise.shape[1]):
            token = _choose(logits, torch.from_numpy(noise[alive.numpy(), step]), temperature)
            going = token != eos
            alive, token = alive[going.cpu()], token[going]
            for row, new in zip(alive.tolist(), token.tolist(), strict=True):
                answers[row].append(new)
            if len(alive) == 0 or step + 1 == noise.shape[1]:
                break
            cache.batch_select_indices(going)
            mask = torch.cat([mask[going], mask.new_ones(len(alive), 1)], dim=1)
            logits = _last_logits(model, token[:, None], mask, mask.sum(1, keepdim=True) - 1, cache)
    return answers


def _last_logits(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """Logits of the token after the last one, [rows, vocabulary]; `cache` grows by the ids."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


def _choose(logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
    """One token per row: the first at which the cumulative probability passes the row's number in [0, 1).

    The sum is in float64, so that the last tokens of a large vocabulary keep their share.
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    target = noise.to(cumulative)[:, None] * cumulative[:, -1:]
    return (cumulative <= target).sum(-1)


def _pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows as ids and attention mask, [rows, longest], each row at the right end."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
