"""FlexAttention's compiled kernel, forward and backward, against a dense mask in float64."""

import pytest
import torch

from tests.gpu import DEVICE, NEEDS_GPU, SHAPE
from tests.unit.training.packed.test_logps import KINDS, attention_inputs, branching_row, dense
from zephyr_ray.training.packed.attention import FlexAttention
from zephyr_ray.training.packed.layout import visible

pytestmark = NEEDS_GPU


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_flex_attention_equals_a_dense_mask(dtype: torch.dtype, bound: float, kind: str) -> None:
    (scale, window, softcap), row = KINDS[kind], branching_row()
    drawn = attention_inputs(row.tokens.shape[1], 0, SHAPE["head_dim"])
    *inputs, upstream = (states.to(DEVICE, dtype) for states in drawn)
    seen, results = visible(row.segments, window).to(DEVICE), []
    flex = FlexAttention(row, torch.device(DEVICE), window)
    for function, wide in ((flex, dtype), (lambda q, k, v, *how: dense(q, k, v, seen, *how), torch.float64)):
        leaves = [states.to(wide).clone().requires_grad_() for states in inputs]
        out = function(*leaves, scale, softcap)
        out.backward(upstream.to(wide))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, exact in zip(*results, strict=True):
        assert float((ours.double() - exact).norm()) < bound * max(float(exact.norm()), 1.0)  # of one key it is 0
