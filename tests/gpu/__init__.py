"""Tests that need a GPU; skipped where torch sees none. `make test-gpu` runs them alone."""

import pytest
import torch

DEVICE, GROUP = "cuda", "nccl"
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
SHAPE = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128}
"""Of the small models: FlexAttention's kernels take no heads narrower than 16."""
