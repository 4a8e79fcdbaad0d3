"""Packed log-probs and gradients against plain ones: each sequence alone, transformers' eager way, and a dense mask."""

import copy
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from tests.oracles.dpo import sequence_logp
from tests.unit.training.flex_on_cpu import plain_flex
from tests.unit.training.read_backs import ReadBacks
from tests.unit.training.small_models import CONFIGS, make_model, make_pairs
from zephyr_ray.training.packed import attention as packed_attention
from zephyr_ray.training.packed import logps as packed_logps
from zephyr_ray.training.packed.attention import BACKENDS, Backend, FlexAttention, SegmentAttention, flash_sequences
from zephyr_ray.training.packed.blocks import BLOCK
from zephyr_ray.training.packed.layout import by_completion, pack, pack_pairs, visible
from zephyr_ray.training.packed.logps import add_packed_forward

FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")


def packed(model, backend: str = "sdpa", outputs: tuple[str, ...] = ("log_probs",)):
    add_fused_lm_head(model, outputs=outputs)
    add_packed_forward(model, backend)
    return model


def sums(model, pairs: list[dict]) -> torch.Tensor:
    row = pack_pairs(pairs)
    return by_completion(row, model(packed_row=row).log_probs).sum(dim=-1).flatten()


@pytest.mark.parametrize("family", CONFIGS)
def test_log_probs_equal_each_sequence_alone(family: str) -> None:
    plain, pairs = make_model(family, attention="eager"), make_pairs(5, 1)
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


def plain_logps(model, pairs: list[dict]) -> torch.Tensor:
    sides = [(pair["prompt_ids"], pair[side]) for side in ("chosen_ids", "rejected_ids") for pair in pairs]
    return torch.stack([plain_logp(model, *side) for side in sides])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_equal_plain_ones(family: str, checkpointing: bool) -> None:
    plain, pairs = make_model(family, attention="eager"), make_pairs(4, 2)
    model = packed(copy.deepcopy(plain)).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ours = gradient(model, sums(model, pairs))
    theirs = gradient(plain, plain_logps(plain, pairs))
    assert torch.cosine_similarity(ours, theirs, dim=0) >= 0.99999
    assert abs(ours.norm() / theirs.norm() - 1) < 1e-4


@pytest.mark.parametrize("family", CONFIGS)
def test_in_bfloat16_they_round_as_plain_ones(family: str) -> None:
    """Log-probs and gradients are as far from float32's as those of each sequence alone in bfloat16."""
    exact, pairs = make_model(family, attention="eager"), make_pairs(6, 5)
    for weight in exact.parameters():
        weight.data = weight.data.bfloat16().float()
    plain = copy.deepcopy(exact).bfloat16()
    model = packed(copy.deepcopy(plain)).train()
    found = []
    for each, logps in ((model, sums(model, pairs)), *((each, plain_logps(each, pairs)) for each in (plain, exact))):
        found.append((logps.detach().float(), gradient(each, logps.float()).float()))
    for ours, theirs, truth in zip(*found, strict=True):
        assert (ours - truth).norm() < 1.1 * (theirs - truth).norm()


@pytest.mark.parametrize("family", ["mistral_window", "gemma2", "gemma3"])
def test_with_flex_attention_they_equal_plain_ones(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.setattr(packed_attention, "_plain_flex", lambda: plain_flex)
    plain, pairs = make_model(family, attention="eager"), make_pairs(6, 6)
    model = packed(copy.deepcopy(plain), "flex").train()
    row = pack_pairs(pairs, BLOCK)
    logps = by_completion(row, model(packed_row=row).log_probs).sum(dim=-1).flatten()
    expected = plain_logps(plain, pairs)
    torch.testing.assert_close(logps, expected, atol=1e-4, rtol=0)
    ours, theirs = gradient(model, logps), gradient(plain, expected)
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
        output = model(packed_row=row)
        ours = {name: by_completion(row, getattr(output, name)).flatten(0, 1).float() for name in FIELDS}
        sides = [(pair["prompt_ids"], pair[side]) for side in ("chosen_ids", "rejected_ids") for pair in pairs]
        for number, (prompt, completion) in enumerate(sides):
            ids = torch.tensor([prompt + completion])
            alone = model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True)
            for name in FIELDS:
                theirs = getattr(alone, name)[0, len(prompt) - 1 :].float()
                got = ours[name][number]
                torch.testing.assert_close(got[: len(completion)], theirs, atol=1e-4, rtol=1e-4)
                assert not got[len(completion) :].any()


def attention_inputs(tokens: int, seed: int, width: int = 8) -> list[torch.Tensor]:
    """Query of four heads, key and value of two (grouped), and the gradient of the output."""
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(1, heads, tokens, width, generator=noise) for heads in (4, 2, 2, 4)]


def dense(query, key, value, seen: torch.Tensor, scale: float | None, softcap: float | None = None):
    key, value = (states.repeat_interleave(2, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * (scale or query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value


def branching_row():
    prompts = [[1] * length for length in (40, 1, 90)]
    branches = [[[2] * 30, [2] * 17, [2]], [[2] * 200, [], [2] * 90], [[2], [2] * 50]]
    return pack(prompts, branches, multiple=128)


KINDS = {
    "plain": (None, None, None),
    "scaled": (0.5, None, None),
    "capped": (0.5, None, 2.0),
    "a window of one": (None, 1, None),
    "a window within prompts": (0.5, 33, None),
    "a window longer than some sequences": (None, 120, 2.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["sdpa", "flex", "flash"])
def test_attention_equals_a_dense_mask(monkeypatch: pytest.MonkeyPatch, backend: Backend, kind: str) -> None:
    """And its gradient, in float32: flash-attn with what its documentation says in the place of its kernel."""
    monkeypatch.setattr(packed_attention, "_plain_flex", lambda: plain_flex)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=documented_varlen))
    (scale, window, softcap), row = KINDS[kind], branching_row()
    *inputs, upstream = attention_inputs(row.tokens.shape[1], 0)
    seen = visible(row.segments, window)
    attention = BACKENDS[backend](row, torch.device("cpu"), window)
    results = []
    for function in (attention, lambda q, k, v, *how: dense(q, k, v, seen, *how)):
        leaves = [states.clone().requires_grad_() for states in inputs]
        out = function(*leaves, scale, softcap)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_cap_is_a_constant_of_the_compiled_kernel() -> None:
    """Of a number that is an input of the graph, as floats are where shapes are dynamic, no kernel is made."""
    row, graphs = branching_row(), []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(flex_attention, dynamic=True, backend=keep)
    attention = FlexAttention(row, torch.device("cpu"))
    query, key, value, _ = attention_inputs(row.tokens.shape[1], 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packed_attention, "_plain_flex", lambda: compiled)
        found = [attention(query, key, value, None, softcap) for softcap in (2.0, 3.0)]
    for softcap, out in zip((2.0, 3.0), found, strict=True):
        torch.testing.assert_close(out, dense(query, key, value, visible(row.segments), None, softcap))
    inputs = [node.meta["example_value"] for graph in graphs for node in graph.graph.nodes if node.op == "placeholder"]
    floats = [each for each in inputs if isinstance(each, torch.Tensor) and each.is_floating_point()]
    assert [len(each.shape) for each in floats] == [4, 4, 4] * 2


def documented_varlen(
    query,
    key,
    value,
    query_ends,
    key_ends,
    most_queries,
    most_keys,
    softmax_scale,
    causal,
    window_size=(-1, -1),
    softcap=0,
):
    """flash-attn's `flash_attn_varlen_func`: sequences of tokens first, one after the other.

    Its documentation: with a window, "query at position i will only attend to keys between [i + seqlen_k - seqlen_q -
    window_size[0], i + seqlen_k - seqlen_q + window_size[1]] inclusive"; -1 is without a bound, and a causal mask is
    aligned to the bottom right corner; "anything > 0 activates softcapping attention".
    """
    found = []
    for (start, end), (first, last) in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        assert end - start <= most_queries
        assert last - first <= most_keys
        place = torch.arange(end - start)[:, None] + (last - first) - (end - start)
        keys = torch.arange(last - first)
        before, after = window_size[0], 0 if causal else window_size[1]
        seen = (keys <= place + after) & ((keys >= place - before) | (before < 0))
        states = [part.transpose(0, 1)[None] for part in (query[start:end], key[first:last], value[first:last])]
        found.append(dense(*states, seen, softmax_scale, softcap or None)[0].transpose(0, 1))
    return torch.cat(found)


def test_in_autocast_states_of_two_dtypes_become_one() -> None:
    """Rotary positions make float32 of queries and keys; FlexAttention and flash-attn want one narrow dtype."""
    row = branching_row()
    query, key, value, _ = attention_inputs(row.tokens.shape[1], 0)
    expected = dense(query, key, value, visible(row.segments), None)
    for backend in (SegmentAttention, FlexAttention):
        mask = backend(row, torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16):
            out, _ = packed_attention.packed_attention(torch.nn.Module(), query, key, value.bfloat16(), mask)
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
