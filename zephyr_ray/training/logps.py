"""Scoring pairs: the log-probability of each completion under a frozen model, in nats.

Two ways that give the same numbers: `PackedScorer` computes each prompt once and without padding, `PaddedScorer` as TRL
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

from zephyr_ray.training.layers import compile_layers
from zephyr_ray.training.losses import completion_sums
from zephyr_ray.training.packed.attention import Backend, row_multiple, segment_multiple
from zephyr_ray.training.packed.backend import working_backend
from zephyr_ray.training.packed.check import check_equals_unpacked
from zephyr_ray.training.packed.layout import by_branch, by_completion, completion_mask, pack_groups, pack_pairs
from zephyr_ray.training.packed.logps import add_fused_lm_head, add_packed_forward
from zephyr_ray.training.token_batching import partition, rounded_up

if TYPE_CHECKING:
    from zephyr_ray.config.model import Chat
    from zephyr_ray.pipeline.model_source import ModelSource
    from zephyr_ray.training.arithmetic import Scoring

Pair = dict[str, list[int]]


def scorer(scoring: Scoring, chat: Chat, source: ModelSource, device: str) -> PackedScorer | PaddedScorer:
    """A frozen model on a device, ready to score pairs.

    Raises:
        UserError: The model does not load, packed log-probs are not those of plain sequences, or padded ones would not
            be the model's.
    """
    from zephyr_ray.chat_template import load_tokenizer
    from zephyr_ray.config.model import ModelSection
    from zephyr_ray.training.model import check_caps_are_kept, load_model, whole_weights

    computing = scoring.arithmetic
    model: Any = load_model(
        whole_weights(source.local(), source.revision),
        ModelSection(attn_implementation=scoring.attn_implementation),
        getattr(torch, computing.weights),
        quantize=scoring.load_in_4bit,
    )
    model = model.to(device).eval()
    for module in model.modules():
        # On a CPU bitsandbytes computes with other, coarser weights in evaluation than in training.
        if type(module).__name__ == "Linear4bit":
            module.train()
    add_fused_lm_head(model)
    if scoring.compile:
        compile_layers(model)
    if scoring.engine == "packed":
        dtype = getattr(torch, computing.dtype)
        backend = working_backend(scoring.packed_attention, device, model.config, dtype)
        return PackedScorer(model, scoring.ld_alpha, scoring.tokens_per_micro_batch, backend, computing.autocast)
    check_caps_are_kept(model.config, scoring.attn_implementation)
    pad = load_tokenizer(source.local(), chat, source.revision).pad_token_id
    return PaddedScorer(model, scoring.ld_alpha, pad, computing.autocast, scoring.pad_to_multiple_of)


def load_scorer(model: str, *, device: str = "cpu", budget: int = 4096) -> PackedScorer:
    """A model that gives packed log-probs, for a program of one's own: `chosen, rejected = scorer(pairs)`.

    Args:
        model: A checkpoint folder, an adapter's folder, or a hub id.
        device: cpu, where it computes in float32, or cuda, where it computes in bfloat16.
        budget: Tokens of a packed row; a larger pair is a row alone.

    Raises:
        UserError: The model does not load, or its packed log-probs are not those of plain sequences.
    """
    from zephyr_ray.config.model import ModelSection
    from zephyr_ray.training.model import load_model, whole_weights

    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    loaded: Any = load_model(whole_weights(model), ModelSection(), dtype)
    loaded = loaded.to(device).eval()
    add_fused_lm_head(loaded)
    backend = working_backend("auto", torch.device(device).type, loaded.config, dtype)
    return PackedScorer(loaded, None, budget, backend)


class PackedScorer:
    """Scores pairs in packed rows of at most `budget` tokens (a larger pair is a row alone).

    Args:
        model: A causal language model that TRL's `add_fused_lm_head` was applied to.
        ld_alpha: As in `completion_sums`.
        autocast: Whether to compute in autocast to bfloat16, as `Arithmetic.autocast`.

    Raises:
        UserError: Packed log-probs are not those of plain sequences.
    """

    def __init__(self, model: Any, ld_alpha: float | None, budget: int, backend: Backend, autocast: bool = False):
        self.model, self.ld_alpha, self.budget, self.backend = model, ld_alpha, budget, backend
        self.narrowing = _narrowing(model, autocast)
        self.align = segment_multiple(backend, torch.bfloat16 if autocast else model.dtype)
        add_packed_forward(model, backend)
        with self.narrowing:
            check_equals_unpacked(model, row_multiple(backend), self.align)

    def __call__(self, pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Two float32 arrays, by pair: the chosen and the rejected completions' sums."""
        sums = np.empty((2, len(pairs)), dtype=np.float32)
        lengths = rounded_up(np.array([sum(map(len, pair.values())) for pair in pairs]), self.align)
        (rows,) = partition(lengths.tolist(), 1, self.budget)
        for indices in rows:
            sums[:, indices] = self._row([pairs[index] for index in indices]).cpu().numpy()
        return sums[0], sums[1]

    @torch.no_grad()
    def completions(self, groups: list[dict[str, Any]]) -> list[np.ndarray]:
        """Of each group (`prompt_ids`, `completions`), whose prompt is computed once, its completions' sums (float32).

        `ld_alpha`, which counts tokens by what else is in a pair, is no part of them.
        """
        sums: list[np.ndarray] = [np.empty(0, np.float32)] * len(groups)
        lengths = [len(group["prompt_ids"]) + sum(map(len, group["completions"])) for group in groups]
        (rows,) = partition(rounded_up(np.array(lengths), self.align).tolist(), 1, self.budget)
        for indices in rows:
            some = [groups[index] for index in indices]
            row = pack_groups(some, row_multiple(self.backend), self.align).to(self.model.device)
            with self.narrowing:
                per_token = by_branch(row, self.model(packed_row=row).log_probs.float())
            ends = np.cumsum([len(group["completions"]) for group in some])[:-1]
            for index, own in zip(indices, np.split(per_token.sum(-1).cpu().numpy(), ends), strict=True):
                sums[index] = own
        return sums

    @torch.no_grad()
    def _row(self, pairs: list[Pair]) -> torch.Tensor:
        row = pack_pairs(pairs, row_multiple(self.backend), self.align).to(self.model.device)
        with self.narrowing:
            per_token = by_completion(row, self.model(packed_row=row).log_probs.float())
        return completion_sums(per_token, completion_mask(row), self.ld_alpha)


class PaddedScorer:
    """Scores pairs as one padded batch, TRL's way: the prompt twice, all sequences as long as the longest."""

    def __init__(
        self,
        model: Any,
        ld_alpha: float | None,
        pad_token_id: int,
        autocast: bool = False,
        pad_to_multiple_of: int | None = None,
    ):
        self.model, self.ld_alpha = model, ld_alpha
        self.narrowing = _narrowing(model, autocast)
        self.collate = DataCollatorForPreference(pad_token_id=pad_token_id, pad_to_multiple_of=pad_to_multiple_of)

    @torch.no_grad()
    def __call__(self, pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Two float32 arrays, by pair: the chosen and the rejected completions' sums."""
        batch = {name: tensor.to(self.model.device) for name, tensor in self.collate(pairs).items()}
        with self.narrowing:
            per_token = self.model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                labels=batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100),
                use_cache=False,
                fused_lm_head=True,
            ).log_probs
        mask = batch["completion_mask"][:, 1:]
        grid, its_mask = (values.view(2, -1, mask.shape[1]) for values in (per_token.float(), mask))
        chosen, rejected = completion_sums(grid, its_mask, self.ld_alpha).cpu().numpy()
        return chosen, rejected


def _narrowing(model: Any, autocast: bool) -> torch.autocast:
    """torch's autocast to bfloat16, which may be entered again and again, or nothing."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=autocast)
