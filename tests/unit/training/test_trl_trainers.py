"""What the planned trainers change of transformers' trainer, without training."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zephyr_ray.training.trainers.dpo import PackedDPOTrainer, PlannedDPOTrainer
from zephyr_ray.training.trainers.sft import PackedSFTTrainer, PlannedSFTTrainer


@pytest.mark.parametrize("kind", [PlannedDPOTrainer, PackedDPOTrainer, PlannedSFTTrainer, PackedSFTTrainer])
def test_deepspeed_casts_no_float_of_a_batch(kind: Any) -> None:
    """In bfloat16, 300.7 would be 300 and 0.3 would be 0.30078."""
    trainer = object.__new__(kind)
    deepspeed = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=deepspeed))
    trainer.args, trainer.is_deepspeed_enabled = SimpleNamespace(device=torch.device("cpu")), True
    floats = {
        name: torch.tensor([-300.7, 0.3]) for name in ("ref_chosen_logps", "ref_rejected_logps", "loss_scale", "margin")
    }
    prepared = trainer._prepare_inputs({**floats, "nested": [{"weight": floats["margin"]}], "row": torch.tensor([1])})
    for name, values in floats.items():
        assert prepared[name].dtype == torch.float32
        assert torch.equal(prepared[name], values)
    assert prepared["nested"][0]["weight"].dtype == torch.float32
    assert prepared["row"].dtype == torch.int64
