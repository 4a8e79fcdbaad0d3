"""A model's decoder layers: how many recompute in the backward pass, and whether torch compiles them."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer

from zephyr_ray.errors import UserError

# Without it a fused kernel leaves out the roundings between its parts, and bfloat16 log-probs are another model's.
_ROUND_AS_UNFUSED = {"emulate_precision_casts": True}


def decoder_layers(model: Any) -> list[Any]:
    """A model's layers that can recompute, first to last; in a decoder these are its layers."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


class RecomputeFirst(TrainerCallback):
    """Leaves recomputing on in a model's first layers alone, where the trainer has turned it on in all.

    The first layers' turn in the backward pass is the last: what they recompute takes the place of what the others,
    which recompute nothing, have given free by then.

    Raises:
        UserError: The model has fewer layers.
    """

    def __init__(self, model: Any, count: int, field: str):
        there = len(decoder_layers(model))
        if count > there:
            raise UserError(f"{field}={count}: this model has {there} layers; true recomputes all of them")
        self.count = count

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        for index, layer in enumerate(decoder_layers(model)):
            layer.gradient_checkpointing = index < self.count


def compile_layers(model: Any) -> None:
    """torch.compile of each decoder layer: norms, rotary positions, SwiGLU and residual sums in a few kernels.

    All layers share their graphs, which have symbolic lengths. Packed attention stays outside of them: it has kernels
    of its own, and a row's segments are no part of a graph.
    """
    for layer in decoder_layers(model):
        layer.compile(dynamic=True, options=_ROUND_AS_UNFUSED)
