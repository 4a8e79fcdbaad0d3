"""Decoder layers that recompute or are compiled train as plain ones do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.unit.training.bf16_workers import Way, make_folder, trainer_of
from tests.unit.training.small_models import make_model, make_pairs
from zephyr_ray.errors import UserError
from zephyr_ray.training.layers import RecomputeFirst, compile_layers, decoder_layers
from zephyr_ray.training.packed.layout import pack_pairs
from zephyr_ray.training.packed.logps import add_packed_forward

pytestmark = pytest.mark.usefixtures("one_thread")
DTYPES = [torch.float32, torch.bfloat16]


def trained(dtype: torch.dtype) -> Any:
    model = make_model("mistral").to(dtype).train()
    add_fused_lm_head(model)
    add_packed_forward(model, "sdpa")
    return model


def step(model: Any, seed: int, packed: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """What a forward pass gives and the gradient of its sum, as one vector."""
    pairs = make_pairs(5 + seed, seed, longest=60)
    if packed:
        out = model(packed_row=pack_pairs(pairs)).log_probs
    else:
        ids = torch.tensor([pair["prompt_ids"][:1] * 9 for pair in pairs])
        out = model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True).log_probs
    model.zero_grad()
    out.float().sum().backward()
    return out.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_layers_recompute_and_give_the_same_gradients(dtype: torch.dtype, packed: bool) -> None:
    model = trained(dtype)
    calls: dict[int, int] = {}
    plain = step(model, 1, packed)
    for number, layer in enumerate(decoder_layers(model)):
        layer.mlp.register_forward_pre_hook(lambda *_, n=number: calls.update({n: calls.get(n, 0) + 1}))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    RecomputeFirst(model, 1, "field").on_train_begin(None, None, None, model=model)
    recomputed = step(model, 1, packed)
    assert calls == {0: 2, 1: 1}
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(recomputed, plain, strict=True))


def test_more_layers_than_there_are_is_refused(tmp_path: Path) -> None:
    way = Way(0, dtype="float32", options=("dpo.training.gradient_checkpointing=3",))
    with pytest.raises(UserError, match=r"^dpo\.training\.gradient_checkpointing=3: this model has 2 layers; true"):
        trainer_of(way, make_folder(tmp_path, "mistral"), str(tmp_path / "out"))


# One thread compiles here: more are processes that load torch anew. And a check compiles as much again.
@torch._inductor.config.patch({"compile_threads": 1, "cpp.vec_isa_ok": True})
def test_compiled_layers_round_as_plain_ones_do() -> None:
    """In bfloat16 to the last digit. Another row takes no other graph."""
    plain, compiled, graphs = trained(torch.bfloat16), trained(torch.bfloat16), []
    compile_layers(compiled)
    torch._dynamo.reset()
    for seed in (1, 2):
        row = pack_pairs(make_pairs(5 + seed, seed, longest=60))
        with torch.no_grad():
            ours, theirs = (model(packed_row=row).log_probs for model in (compiled, plain))
        assert torch.equal(ours, theirs)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
def test_gradients_of_compiled_layers(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bound: float) -> None:
    """Traced and differentiated as for a compiler, and not compiled: kernels of both passes would take long."""
    plain, compiled, compile_one = trained(dtype), trained(dtype), torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda layer, **how: compile_one(layer, backend="aot_eager", dynamic=how["dynamic"])
    )
    compile_layers(compiled)
    theirs, their_gradient = step(plain, 1)
    for recomputing in (False, True):
        if recomputing:
            compiled.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        ours, our_gradient = step(compiled, 1)
        assert torch.equal(ours, theirs)
        assert float((our_gradient - their_gradient).float().norm() / their_gradient.float().norm()) < bound


def test_policy_and_reference_are_both_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **how: compiled.append(layer))
    way = Way(0, options=("dpo.training.compile=true",))
    trainer = trainer_of(way, make_folder(tmp_path, "mistral"), str(tmp_path / "out"))
    assert len(compiled) == 4
    assert compiled[2:] == decoder_layers(trainer.model)
