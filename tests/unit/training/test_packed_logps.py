"""Packed log-probs and gradients against plain ones: each sequence alone, and a dense mask, in float32."""

import copy

import numpy as np
import pytest
import torch
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from tests.oracles.dpo import sequence_logp
from tests.unit.training.packed import CONFIGS, make_model, make_pairs
from tests.unit.training.read_backs import ReadBacks
from zephyr_ray.training import packed_logps
from zephyr_ray.training.packed_attention import FlexAttention, SegmentAttention, flash_sequences, packed_attention
from zephyr_ray.training.packed_layout import pack, visible
from zephyr_ray.training.packed_logps import PairGrid, add_packed_forward
from zephyr_ray.training.packed_trainer import pack_pairs

FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")


def packed(model, backend: str = "sdpa", outputs: tuple[str, ...] = ("log_probs",)):
    add_fused_lm_head(model, outputs=outputs)
    add_packed_forward(model, backend)
    return model


def sums(model, pairs: list[dict]) -> torch.Tensor:
    row = pack_pairs(pairs)
    grid = PairGrid(row)
    return grid.scatter(model(packed_row=row)).log_probs.sum(dim=1)


@pytest.mark.parametrize("family", CONFIGS)
def test_log_probs_equal_each_sequence_alone(family: str) -> None:
    plain, pairs = make_model(family), make_pairs(5, 1)
    expected = [
        sequence_logp(plain, pair["prompt_ids"], pair[side])
        for side in ("chosen_ids", "rejected_ids")
        for pair in pairs
    ]
    model = packed(copy.deepcopy(plain))
    with torch.no_grad():
        np.testing.assert_allclose(sums(model, pairs).numpy(), expected, atol=1e-4)
        alone = torch.cat([sums(model, [pair]).view(2, 1) for pair in pairs], dim=1).flatten()
        np.testing.assert_allclose(alone.numpy(), expected, atol=1e-4)


def gradient(model, logps: torch.Tensor) -> torch.Tensor:
    """Of a loss that treats every completion differently."""
    (logps * torch.linspace(-1, 1, len(logps))).sum().backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def plain_logp(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    return logits[len(prompt) - 1 : -1].gather(1, torch.tensor(completion)[:, None]).sum()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_equal_plain_ones(family: str, checkpointing: bool) -> None:
    plain, pairs = make_model(family), make_pairs(4, 2)
    model = packed(copy.deepcopy(plain)).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ours = gradient(model, sums(model, pairs))
    sides = [(pair["prompt_ids"], pair[side]) for side in ("chosen_ids", "rejected_ids") for pair in pairs]
    theirs = gradient(plain, torch.stack([plain_logp(plain, *side) for side in sides]))
    assert torch.cosine_similarity(ours, theirs, dim=0) >= 0.99999
    assert abs(ours.norm() / theirs.norm() - 1) < 1e-4


def test_the_heads_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles far shorter than the row, against one tile."""
    plain, pairs, found = make_model("mistral"), make_pairs(8, 4), []
    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", chunked_logprob.TOKEN_CHUNK_SIZE)  # put back at the end
    assert pack_pairs(pairs).targets.numel() > 5 * 7
    for tokens in (7, 4096):
        monkeypatch.setitem(packed_logps.TILE_TOKENS, "cpu", tokens)
        model = packed(copy.deepcopy(plain)).train()
        logps = sums(model, pairs)
        assert tokens == chunked_logprob.TOKEN_CHUNK_SIZE
        found.append((logps.detach(), gradient(model, logps)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["mistral", "mixtral"])
def test_every_field_is_trls(family: str) -> None:
    """Each of the fused head's fields, against the same head on every sequence alone."""
    plain, pairs = make_model(family), make_pairs(4, 3)
    model, row = packed(copy.deepcopy(plain), outputs=FIELDS), pack_pairs(pairs)
    with torch.no_grad():
        ours = PairGrid(row).scatter(model(packed_row=row))
        sides = [(pair["prompt_ids"], pair[side]) for side in ("chosen_ids", "rejected_ids") for pair in pairs]
        for number, (prompt, completion) in enumerate(sides):
            ids = torch.tensor([prompt + completion])
            alone = model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True)
            for name in FIELDS:
                theirs = getattr(alone, name)[0, len(prompt) - 1 :].float()
                got = getattr(ours, name)[number].float()
                torch.testing.assert_close(got[: len(completion)], theirs, atol=1e-4, rtol=1e-4)
                assert not got[len(completion) :].any()


def attention_inputs(tokens: int, seed: int) -> list[torch.Tensor]:
    """Query of four heads, key and value of two (grouped), and the gradient of the output."""
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(1, heads, tokens, 16, generator=noise) for heads in (4, 2, 2, 4)]


def dense(query, key, value, seen: torch.Tensor, scale: float | None) -> torch.Tensor:
    key, value = (states.repeat_interleave(2, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * (scale or 16**-0.5)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value


def branching_row():
    prompts = [[1] * length for length in (40, 1, 90)]
    branches = [[[2] * 30, [2] * 17, [2]], [[2] * 200, [], [2] * 90], [[2], [2] * 50]]
    return pack(prompts, branches, multiple=128)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_segment_attention_equals_a_dense_mask(scale: float | None) -> None:
    row = branching_row()
    *inputs, upstream = attention_inputs(row.tokens.shape[1], 0)
    seen = visible(row.segments)
    results = []
    for function in (SegmentAttention(row, torch.device("cpu")), lambda q, k, v, scale: dense(q, k, v, seen, scale)):
        leaves = [states.clone().requires_grad_() for states in inputs]
        out = function(*leaves, scale)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_flex_attention_equals_a_dense_mask(scale: float | None) -> None:
    """Forward alone: torch has no backward of FlexAttention on a CPU."""
    row = branching_row()
    *inputs, _ = attention_inputs(row.tokens.shape[1], 0)
    ours = FlexAttention(row, torch.device("cpu"))(*inputs, scale)
    torch.testing.assert_close(ours, dense(*inputs, visible(row.segments), scale), atol=1e-5, rtol=1e-4)


def test_in_autocast_states_of_two_dtypes_become_one() -> None:
    """Rotary positions make float32 of queries and keys; FlexAttention and flash-attn want one narrow dtype."""
    row = branching_row()
    query, key, value, _ = attention_inputs(row.tokens.shape[1], 0)
    expected = dense(query, key, value, visible(row.segments), None)
    for backend in (SegmentAttention, FlexAttention):
        mask = backend(row, torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16):
            out, _ = packed_attention(torch.nn.Module(), query, key, value.bfloat16(), mask)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.transpose(1, 2).float(), expected, atol=0.05, rtol=0.05)


def test_flash_sequences_are_the_dense_rule() -> None:
    """What flash-attn is asked: sequence by sequence, queries see keys causally, aligned at the last of both."""
    row = pack([[1] * 5, [1], [1] * 3], [[[2] * 3, [2] * 4, [2]], [], [[2] * 2]])
    queries, keys, index = flash_sequences(row.segments)
    seen = torch.zeros(row.tokens.shape[1], row.tokens.shape[1], dtype=torch.bool)
    query = key = 0
    for count, width in zip(queries, keys, strict=True):
        for place in range(count):
            seen[query + place, index[key : key + width - count + place + 1]] = True
        query, key = query + count, key + width
    assert torch.equal(seen, visible(row.segments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lean_head_changes_no_log_prob_and_no_gradient(dtype: torch.dtype) -> None:
    """Every digit of them; what it leaves out is None."""
    plain, row = make_model("mistral").to(dtype), pack_pairs(make_pairs(4, 3))
    found = []
    for lean in (False, True):
        model = copy.deepcopy(plain)
        add_fused_lm_head(model, outputs=FIELDS)
        add_packed_forward(model, "sdpa", ("log_probs", "log_sum_sq_probs"))
        output = model(packed_row=row, lean=lean)
        assert [getattr(output, name) is None for name in ("entropy", "mean_logits", "is_top1")] == [lean] * 3
        found.append([output.log_probs.detach(), output.log_sum_sq_probs, gradient(model, output.log_probs[0])])
    for whole, part in zip(*found, strict=True):
        assert torch.equal(whole, part)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_scoring_some_targets_changes_none_of_them(dtype: torch.dtype, atol: float) -> None:
    model, row = packed(make_model("mistral").to(dtype)), pack_pairs(make_pairs(4, 3))
    chosen = torch.arange(row.targets.numel()) % 3 == 1
    with torch.no_grad():
        some, every = (model(packed_row=each).log_probs for each in (row.scoring(chosen), row))
    torch.testing.assert_close(some, every[:, chosen], atol=atol, rtol=0)
    assert every.std() > 1


def test_a_gpus_path_of_trls_head_scores_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TRL sees a GPU it picks the targets that are not ignored, and waits for them. A row has no others."""
    model, row = packed(make_model("mistral")), pack_pairs(make_pairs(4, 3))
    with torch.no_grad():
        expected = model(packed_row=row).log_probs
        monkeypatch.setattr(trl_utils, "_use_triton", lambda device: True)
        with ReadBacks() as ours:
            log_probs = model(packed_row=row).log_probs
        with ReadBacks() as trls:
            ids = torch.tensor([[5, 6, 7]])
            model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True)
    assert torch.equal(log_probs, expected)
    assert ours.found.total() == 0 < trls.found.total()
