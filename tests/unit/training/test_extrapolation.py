"""Weights beyond the aligned model: the equation of ExPO, tensor by tensor, whatever files they lie in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.unit.training.small_models import CONFIGS
from zephyr_ray.errors import UserError
from zephyr_ray.training.extrapolation import extrapolate


def saved(folder: Path, name: str, seed: int, dtype: torch.dtype = torch.float32, **options: object) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).to(dtype)
    model.save_pretrained(folder, **options)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_lie_beyond_the_aligned_ones(tmp_path: Path, dtype: torch.dtype) -> None:
    start = saved(tmp_path / "start", "llama", 0, dtype, max_shard_size="20KB")
    aligned = saved(tmp_path / "aligned", "llama", 1, dtype, max_shard_size="50KB")
    (tmp_path / "beyond").mkdir()
    extrapolate(str(tmp_path / "start"), str(tmp_path / "aligned"), str(tmp_path / "beyond"), 0.3)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "beyond", dtype=dtype).state_dict()
    exact = torch.finfo(dtype).eps
    for name, weight in aligned.state_dict().items():
        before = start.state_dict()[name].double()
        expected = before + 1.3 * (weight.double() - before)
        torch.testing.assert_close(found[name].double(), expected, rtol=exact, atol=1e-7, msg=name)
        assert found[name].dtype == dtype


def test_next_to_nothing_beyond_the_aligned_model_is_the_aligned_model(tmp_path: Path) -> None:
    saved(tmp_path / "start", "llama", 0)
    aligned = saved(tmp_path / "aligned", "llama", 1)
    (tmp_path / "beyond").mkdir()
    extrapolate(str(tmp_path / "start"), str(tmp_path / "aligned"), str(tmp_path / "beyond"), 0.0)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "beyond").state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in aligned.state_dict().items())


def test_models_of_two_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "beyond").mkdir()
    saved(tmp_path / "start", "llama", 0)
    saved(tmp_path / "other", "qwen2", 0)
    with pytest.raises(UserError, match=r"expo: the model that dpo started from has no model\.layers\.0\.self_attn"):
        extrapolate(str(tmp_path / "start"), str(tmp_path / "other"), str(tmp_path / "beyond"), 0.3)
    wide = CONFIGS["llama"]()
    wide.vocab_size += 1
    AutoModelForCausalLM.from_config(wide).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match=r"is \(320, 32\) in the model that dpo started from, and \(321, 32\) in dpo's"):
        extrapolate(str(tmp_path / "start"), str(tmp_path / "wide"), str(tmp_path / "beyond"), 0.3)
