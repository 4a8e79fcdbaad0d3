"""FlexAttention's compiled kernel, forward and backward, against a dense mask in float64."""

import pytest
import torch

from tests.gpu import DEVICE, NEEDS_GPU
from tests.unit.training.packed.test_logps import attention_inputs, branching_row, dense
from zephyr_ray.training.packed.attention import FlexAttention
from zephyr_ray.training.packed.layout import visible

pytestmark = NEEDS_GPU


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_flex_attention_equals_a_dense_mask(dtype: torch.dtype, bound: float, scale: float | None) -> None:
    row = branching_row()
    *inputs, upstream = (states.to(DEVICE, dtype) for states in attention_inputs(row.tokens.shape[1], 0))
    seen, results = visible(row.segments).to(DEVICE), []
    flex = FlexAttention(row, torch.device(DEVICE))
    for function, wide in ((flex, dtype), (lambda q, k, v, scale: dense(q, k, v, seen, scale), torch.float64)):
        leaves = [states.to(wide).clone().requires_grad_() for states in inputs]
        out = function(*leaves, scale)
        out.backward(upstream.to(wide))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, exact in zip(*results, strict=True):
        assert float((ours.double() - exact).norm() / exact.norm()) < bound
