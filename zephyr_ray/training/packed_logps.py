"""Reads a model and a packed row -> log-probabilities of the completion tokens, without the vocabulary's logits.

TRL's fused head runs in chunks over hidden states; a hook leaves it only the ones that predict a completion token. So
its kernel, and all it knows of soft caps, scales, biases and sharded weights, is TRL's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from zephyr_ray.training.packed_attention import IMPLEMENTATION, Backend, active_row, attending
from zephyr_ray.training.packed_layout import PackedRow

# TRL's tile of 4,096 tokens is a GPU kernel's, which works in place. Without that kernel torch holds eight copies of a
# tile in the backward pass: with 256 tokens a training run of 13 million parameters took 0.7 of the memory, and no more
# time. The sums over tiles are the same but for float32's rounding.
TILE_TOKENS = {"cpu": 256}
_TRL_TILE_TOKENS = chunked_logprob.TOKEN_CHUNK_SIZE
FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""Of TRL's output, those that are one number for each token."""


def add_packed_forward(model: Any, backend: Backend, loss_reads: tuple[str, ...] = ("log_probs",)) -> None:
    """Adds `model(packed_row=row)` to a model with TRL's fused head: its fields, each [1, C], for the row's targets.

    With `lean=True` the fields are those of `loss_reads` alone, and the others None. Other calls are as before.
    Wrappers (PEFT, DDP, DeepSpeed) that come later pass the arguments through, so that what is called is always the
    wrapper.
    """
    model.set_attn_implementation(IMPLEMENTATION)
    model.base_model.register_forward_hook(_keep_predictors)
    all_fields = model.forward
    add_fused_lm_head(model, outputs=loss_reads)
    fields_of_loss = model.forward

    def forward(self: Any, *args: Any, packed_row: PackedRow | None = None, lean: bool = False, **kwargs: Any) -> Any:
        if packed_row is None:
            return all_fields(*args, **kwargs)
        chunked_logprob.TOKEN_CHUNK_SIZE = TILE_TOKENS.get(packed_row.tokens.device.type, _TRL_TILE_TOKENS)
        with attending(packed_row, backend), _every_target_is_scored():
            return (fields_of_loss if lean else all_fields)(
                input_ids=packed_row.tokens,
                position_ids=packed_row.positions,
                shift_labels=packed_row.targets,
                use_cache=False,
                fused_lm_head=True,
                **routing(kwargs),
            )

    model.forward = types.MethodType(forward, model)


@contextlib.contextmanager
def _every_target_is_scored() -> Iterator[None]:
    """On a GPU TRL looks for labels that are ignored, to leave them out, and waits for the answer. A row has none of
    them: inside, TRL scores all labels, as it does on a CPU. Its kernels stay those of the GPU."""
    theirs = trl_utils._use_triton
    trl_utils._use_triton = lambda device: False
    try:
        yield
    finally:
        trl_utils._use_triton = theirs


def routing(arguments: dict[str, Any]) -> dict[str, Any]:
    """What of a call of the model a packed one takes over: whether a mixture of experts tells how it routed."""
    return {name: value for name, value in arguments.items() if name == "output_router_logits"}


def _keep_predictors(backbone: Any, args: Any, output: Any) -> Any:
    row = active_row()
    if row is not None:
        output.last_hidden_state = output.last_hidden_state[:, row.predictors]
    return output


@dataclass(frozen=True)
class PairGrid:
    """Where the tokens of a row of pairs lie in TRL's batch: [2 B, L], the chosen completions first.

    L is one more than the longest completion: TRL drops the first column, which nothing predicts.
    """

    row: PackedRow

    @property
    def _lengths(self) -> torch.Tensor:
        """Tokens of each completion [2 B], the chosen ones first; in the row a pair's two follow each other.

        On the CPU: a GPU would be waited for at each look at a number.
        """
        return torch.tensor(self.row.branch_lengths).view(-1, 2).T.flatten()

    def batch(self) -> dict[str, torch.Tensor]:
        """`completion_mask`, and stand-ins for what TRL only counts or masks. On the row's device."""
        lengths, device = self._lengths, self.row.tokens.device
        place = torch.arange(max(self.row.branch_lengths) + 1)
        mask = ((place > 0) & (place <= lengths[:, None])).long().to(device, non_blocking=True)
        prompts = 2 * sum(segment.prompt for segment in self.row.segments if segment.branches)
        # TRL counts tokens by summing the attention mask, a pair's prompt twice
        return {
            "input_ids": torch.zeros_like(mask),
            "completion_mask": mask,
            "attention_mask": lengths.sum()[None] + prompts,
        }

    def scatter(self, output: FusedCausalLMOutput) -> FusedCausalLMOutput:
        """The fields [1, C] of a packed forward as TRL expects them, [2 B, L - 1], zero where there is no token."""
        lengths = self.row.branch_lengths
        pair, side = self.row.branch // 2, self.row.branch % 2
        place = (pair + side * (len(lengths) // 2), self.row.offset)
        shape = (len(lengths), max(lengths))
        fields = {name: getattr(output, name) for name in FIELDS}
        grids = {
            name: values.new_zeros(shape).index_put(place, values[0])
            for name, values in fields.items()
            if values is not None
        }
        return dataclasses.replace(output, **grids)
