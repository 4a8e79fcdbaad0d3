"""Models that cannot be packed are refused by name, with the way out."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GptOssConfig,
    MambaConfig,
    MistralConfig,
    MptConfig,
    PreTrainedConfig,
)
from trl.trainer.utils import add_fused_lm_head

from tests.unit.training.small_models import CONFIGS, make_model
from zephyr_ray.errors import UserError
from zephyr_ray.training.packed.attention import BACKENDS, SegmentAttention, choose_backend
from zephyr_ray.training.packed.blocks import BLOCK
from zephyr_ray.training.packed.check import (
    _lengths,
    check_attention,
    check_equals_unpacked,
    check_folder,
    check_packable,
)
from zephyr_ray.training.packed.layout import pack
from zephyr_ray.training.packed.logps import add_packed_forward

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
REFUSED = [
    (BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4), "type bloom: .*attention interface"),
    (MptConfig(vocab_size=97, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2), "type mpt: .*attention interface"),
    (MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4), "type mamba: .*linear_attention"),
    (MistralConfig(**SHAPE, attention_dropout=0.1), "type mistral: attention_dropout is 0.1"),
]


def from_config(config: PreTrainedConfig):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    add_fused_lm_head(model)
    return model


@pytest.mark.parametrize(("config", "reason"), REFUSED, ids=[config.model_type for config, _ in REFUSED])
def test_what_cannot_be_packed_is_refused(config: PreTrainedConfig, reason: str) -> None:
    with pytest.raises(UserError, match=rf"{reason}.*; training\.engine=padded works"):
        check_packable(config, type(from_config(config)))


def test_a_folder_is_refused_by_its_configuration_an_adapters_by_its_bases(tmp_path: Path) -> None:
    base, adapter, good = (tmp_path / name for name in ("base", "adapter", "good"))
    BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4).save_pretrained(base)
    MistralConfig(**SHAPE, sliding_window=None).save_pretrained(good)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    for folder in (base, adapter):
        with pytest.raises(UserError, match="type bloom"):
            check_folder(str(folder), None)
    check_folder(str(good), None)


@pytest.mark.parametrize("family", CONFIGS)
def test_what_can_be_packed_passes_both_checks(family: str) -> None:
    model = make_model(family)
    check_packable(model.config, type(model))
    add_fused_lm_head(model)
    add_packed_forward(model, "sdpa")
    check_equals_unpacked(model)


def test_a_model_that_reads_its_neighbours_is_found_by_numbers() -> None:
    """Mamba's state runs through all branches, whatever its configuration says."""
    config = MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    add_packed_forward(model, "sdpa")
    with pytest.raises(UserError, match="type mamba: packed and plain log-probs differ by"):
        check_equals_unpacked(model)


class WrongBeyondABlock(SegmentAttention):
    """Right in a row of one block; in longer ones wrong as told."""

    output, gradient = 0.0, 0.0

    def __call__(self, query, key, value, scale, softcap=None):
        far = key.shape[2] > BLOCK
        out = super().__call__(query, key + far * self.gradient * (key - key.detach()), value, scale, softcap)
        return out + far * self.output * out.detach().flip(2)


class WithoutWindows(SegmentAttention):
    def __init__(self, row, device, window=None):
        super().__init__(row, device)


class WithoutCaps(SegmentAttention):
    def __call__(self, query, key, value, scale, softcap=None):
        return super().__call__(query, key, value, scale)


@pytest.mark.parametrize(
    ("family", "kernel"), [("mistral_window", WithoutWindows), ("gemma3", WithoutWindows), ("gemma2", WithoutCaps)]
)
def test_a_kernel_without_windows_or_caps_is_refused(
    monkeypatch: pytest.MonkeyPatch, family: str, kernel: type[SegmentAttention]
) -> None:
    """By the check of kernels and by that of models."""
    model = make_model(family)
    check_attention(model.config, "sdpa", torch.device("cpu"), torch.bfloat16)
    monkeypatch.setitem(BACKENDS, "flash", kernel)
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(UserError, match="packed_attention=flash is wrong on this machine: its output differs"):
            check_attention(model.config, "flash", torch.device("cpu"), dtype)
    add_fused_lm_head(model)
    add_packed_forward(model, "flash")
    with pytest.raises(UserError, match="packed and plain log-probs differ by"):
        check_equals_unpacked(model)


def test_the_check_goes_beyond_a_models_window() -> None:
    """Of Gemma 3 1B's 512 tokens and 4B's 1,024; of Gemma 2's 4,096 only kernels are checked, in a window of 100."""
    for window, longest in ((512, 542), (1024, 1054), (4096, 270)):
        lengths = _lengths(Gemma3TextConfig(**SHAPE, sliding_window=window))
        assert max(prompt + max(branches) for prompt, branches in lengths) == longest


@pytest.mark.parametrize(("wrong", "part"), [({"output": 0.1}, "output"), ({"gradient": 0.5}, "gradient")])
def test_a_kernel_that_is_wrong_beyond_a_block_is_refused(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, float], part: str
) -> None:
    config = CONFIGS["mistral"]()
    check_attention(config, "sdpa", torch.device("cpu"), torch.bfloat16)
    monkeypatch.setitem(BACKENDS, "flash", type("Wrong", (WrongBeyondABlock,), wrong))
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(UserError, match=rf"packed_attention=flash is wrong on this machine: its {part} differs"):
            check_attention(config, "flash", torch.device("cpu"), dtype)


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_the_check_sees_several_blocks(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """Also of a model with a short sliding window."""
    model = make_model(family)
    add_fused_lm_head(model)
    add_packed_forward(model, "sdpa")
    monkeypatch.setitem(BACKENDS, "sdpa", type("Wrong", (WrongBeyondABlock,), {"output": 0.1}))
    with pytest.raises(UserError, match="packed and plain log-probs differ by"):
        check_equals_unpacked(model)


def test_attention_with_learned_sinks_is_refused_at_its_first_call() -> None:
    model = from_config(GptOssConfig(**SHAPE, head_dim=8, num_local_experts=4))
    add_packed_forward(model, "sdpa")
    with pytest.raises(UserError, match=r"GptOssAttention: s_aux: .*padded works"):
        model(packed_row=pack([[1, 2]], [[[3], [4]]]))


def test_other_calls_and_the_stored_configuration_are_as_before() -> None:
    plain = make_model("mistral")
    model = copy.deepcopy(plain)
    add_fused_lm_head(model)
    add_packed_forward(model, "sdpa")
    ids, mask = torch.randint(3, 97, (2, 9)), torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids, attention_mask=mask).logits[mask.bool()],
            plain(input_ids=ids, attention_mask=mask).logits[mask.bool()],
        )
    assert model.config.to_dict() == plain.config.to_dict()


def test_backends_are_chosen_by_what_is_there() -> None:
    assert choose_backend("auto", "cpu") == "sdpa"
    assert choose_backend("auto", "cuda") in ("flex", "flash")
    assert choose_backend("flex", "cuda") == "flex"
    with pytest.raises(UserError, match="flex needs a GPU"):
        choose_backend("flex", "cpu")
    with pytest.raises(UserError, match="flash needs a GPU"):
        choose_backend("flash", "cpu")
