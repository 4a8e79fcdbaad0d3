"""A model's forward pass on a packed row: log-probs of completion tokens, without the vocabulary's logits.

TRL's fused head runs in chunks over hidden states; a hook leaves it only the ones that predict a completion token. So
its kernel, and all it knows of soft caps, scales, biases and sharded weights, is TRL's own.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from zephyr_ray.training.packed.attention import IMPLEMENTATION, Backend, active_row, attending
from zephyr_ray.training.packed.layout import PackedRow

# TRL's tile of 4,096 tokens is a GPU kernel's, which works in place. Without that kernel torch holds eight copies of a
# tile in the backward pass: with 256 tokens a training run of 13 million parameters took 0.7 of the memory, and no more
# time. The sums over tiles are the same but for float32's rounding.
TILE_TOKENS = {"cpu": 256}
_TRL_TILE_TOKENS = chunked_logprob.TOKEN_CHUNK_SIZE


def add_packed_forward(model: Any, backend: Backend, loss_reads: tuple[str, ...] = ("log_probs",)) -> None:
    """Adds `model(packed_row=row)` to a model with TRL's fused head: its fields, each [1, C], for the row's targets.

    With `lean=True` the fields are those of `loss_reads` alone, and the others None. A packed call also takes
    `output_router_logits`, for the auxiliary loss of a mixture of experts. Other calls are as before.
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
                **{name: value for name, value in kwargs.items() if name == "output_router_logits"},
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


def _keep_predictors(backbone: Any, args: Any, output: Any) -> Any:
    row = active_row()
    if row is not None:
        output.last_hidden_state = output.last_hidden_state[:, row.predictors]
    return output
