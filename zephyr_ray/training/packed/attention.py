"""Attention on a packed row: a token sees its prompt and its own branch, exactly.

Registered in transformers' attention interface, so that any decoder that uses the interface works as it is. No backend
builds a dense mask of the row, and none computes blocks of it that are empty:

- sdpa: torch's own attention, one call for each branch. On a CPU 4.9 times faster (forward and backward) than one call
  with a dense mask, at 2,540 tokens in four pairs. Merging the prompt's part and the branch's own by their log-sum-exps
  saves another 4 % and needs torch's private operators.
- flex: FlexAttention with a block mask made from the segments; compiled once for all lengths.
- flash: flash-attn's kernel for sequences of different lengths, where it is installed: queries are the row as it lies,
  keys are gathered so that each branch has its prompt before it.

A layer's window comes with the mask that the model asks for, one for each kind of its layers; flex and flash leave out
what it hides, sdpa masks it. Capped scores (`softcap`) are flex's and flash's own; torch's attention has none, and sdpa
multiplies them out, branch by branch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, masking_utils
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from zephyr_ray.errors import UserError
from zephyr_ray.training.packed.blocks import BLOCK, block_mask
from zephyr_ray.training.packed.layout import PackedRow, Segment, spans

Backend = Literal["sdpa", "flex", "flash"]
IMPLEMENTATION = "zephyr_ray_packed"
# What a model may hand to its attention that none of the backends computes.
_UNKNOWN = ("s_aux", "position_bias")


class Attend(Protocol):
    """Attention over one packed row: query [1, H, T, D], key and value [1, G, T, D] -> [1, H, T, D].

    Scores are capped to -softcap .. softcap, by the hyperbolic tangent, where there is one.
    """

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        softcap: float | None = None,
    ) -> torch.Tensor: ...


_active: ContextVar[tuple[PackedRow, Backend] | None] = ContextVar("packed_row", default=None)


@contextlib.contextmanager
def attending(row: PackedRow, backend: Backend) -> Iterator[None]:
    """Models that are called inside compute attention over this row."""
    token = _active.set((row, backend))
    try:
        yield
    finally:
        _active.reset(token)


def active_row() -> PackedRow | None:
    """The row that the model is called on just now, or None outside of `attending`."""
    active = _active.get()
    return active[0] if active else None


def choose_backend(wanted: Literal["auto", "sdpa", "flex", "flash"], device: str) -> Backend:
    """auto: sdpa on a CPU; on a GPU flash where flash-attn is installed, else flex.

    Raises:
        UserError: What was asked for is not there.
    """
    flash = device == "cuda" and importlib.util.find_spec("flash_attn") is not None
    if wanted == "auto":
        return "sdpa" if device == "cpu" else "flash" if flash else "flex"
    if wanted == "flex" and device == "cpu":
        raise UserError("training.packed_attention=flex needs a GPU (torch has no backward of it on a CPU); sdpa works")
    if wanted == "flash" and not flash:
        raise UserError("training.packed_attention=flash needs a GPU and the package flash-attn; auto does not")
    return wanted


def row_multiple(backend: Backend) -> int:
    """What the length of a row is filled up to: FlexAttention works in blocks."""
    return BLOCK if backend == "flex" else 1


def segment_multiple(backend: Backend, dtype: torch.dtype) -> int:
    """Where in a row a pair may start: anywhere, but at a block of FlexAttention's in 16 bits.

    Where a pair starts decides how its keys fall into blocks, and so what is rounded. At a block's border its log-probs
    are the same, in every digit, in every row: the reference's are those of training, whatever the packing.
    """
    return BLOCK if backend == "flex" and dtype != torch.float32 else 1


def head_shapes(config: Any) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, and the width of each, of a model's configuration."""
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return heads, key_heads, getattr(config, "head_dim", None) or config.hidden_size // heads


class SegmentAttention:
    """Torch's attention, branch by branch: the first one together with its prompt, the others after its keys.

    The row is cut with `split`, whose backward is one copy; a slice for each branch would fill a row of zeros each.
    Keys of grouped heads are repeated: torch's own grouping took 1.15 times as long on a CPU, whose threads share the
    backward out by groups, and on a GPU it has no fast kernel with a mask.

    What a sequence is computed with depends on its own length and window alone, never on the rest of the row.
    """

    def __init__(self, row: PackedRow, device: torch.device, window: int | None = None):
        self.segments = row.segments
        self.parts = [length for segment in row.segments for length in _parts(segment)]
        self.plans = [_plans(segment, window, device) for segment in row.segments]

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        attention: Any = functools.partial(scaled_dot_product_attention, scale=scale)
        if softcap is not None:
            attention = functools.partial(capped_attention, scale=scale, softcap=softcap)
        groups = query.shape[1] // key.shape[1]
        states = (query, repeat_kv(key, groups), repeat_kv(value, groups))
        parts = zip(*(tensor.split(self.parts, dim=2) for tensor in states), strict=True)
        seen = []
        for segment, (first_mask, later) in zip(self.segments, self.plans, strict=True):
            first = next(parts)
            seen.append(attention(*first, attn_mask=first_mask, is_causal=first_mask is None))
            for kept, mask in later:
                own = next(parts)
                prompt = [states[:, :, segment.prompt - kept : segment.prompt] for states in first]
                keys, values = (torch.cat(states, dim=2) for states in zip(prompt[1:], own[1:], strict=True))
                if mask is None:
                    queries = torch.cat([prompt[0], own[0]], dim=2)
                    seen.append(attention(queries, keys, values, is_causal=True)[:, :, segment.prompt :])
                else:
                    seen.append(attention(own[0], keys, values, attn_mask=mask))
        tokens_first = torch.cat([states.transpose(1, 2) for states in seen], dim=1)  # as torch lays them out
        return tokens_first.transpose(1, 2)


def _parts(segment: Segment) -> list[int]:
    """Tokens of the prompt with its first branch, and of every other branch."""
    return [segment.prompt + sum(segment.branches[:1]), *(tokens for tokens in segment.branches[1:] if tokens)]


def _plans(
    segment: Segment, window: int | None, device: torch.device
) -> tuple[torch.Tensor | None, list[tuple[int, torch.Tensor | None]]]:
    """A mask of the first part, None for a causal one; and for every other branch how many of its prompt's last tokens
    it attends to, and its mask after them.

    A branch's mask is None where to attend from the prompt anew, causally and without a mask, costs less than the half
    of the branch's own square that a mask leaves to compute. On a CPU a masked product took 0.74 of the time of a
    causal one for each query and key that it computes.
    """
    first, *later = _parts(segment)
    plans: list[tuple[int, torch.Tensor | None]] = []
    for tokens in later:
        if window is not None and window < segment.prompt + tokens:
            kept = min(segment.prompt, window - 1)
            plans.append((kept, _mask(kept, tokens, window, device)))
        elif 2 * segment.prompt < tokens:
            plans.append((segment.prompt, None))
        else:
            plans.append((segment.prompt, _mask(segment.prompt, tokens, None, device)))
    return None if window is None or window >= first else _mask(0, first, window, device), plans


def _mask(before: int, tokens: int, window: int | None, device: torch.device) -> torch.Tensor:
    """bool [tokens, before + tokens] for tokens that follow so many others."""
    causal = torch.ones(tokens, before + tokens, dtype=torch.bool, device=device).tril(before)
    return causal if window is None else causal.triu(before + 1 - window)


def capped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    *,
    scale: float | None,
    softcap: float,
) -> torch.Tensor:
    """Torch's `scaled_dot_product_attention` with capped scores, which it holds as a whole: transformers' eager way."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = softcap * torch.tanh(scores / softcap)
    if is_causal:
        attn_mask = _mask(0, query.shape[2], None, query.device)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value


class FlexAttention:
    """FlexAttention over blocks of 128 tokens. Compiled with symbolic lengths: a fixed shape compiles anew for each."""

    def __init__(self, row: PackedRow, device: torch.device, window: int | None = None):
        self.mask = block_mask(row.segments, device, window)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        kernel = _compiled_flex() if query.is_cuda else _plain_flex()
        capped = None if softcap is None else _capped(softcap)
        grouped = query.shape[1] != key.shape[1]
        return kernel(query, key, value, score_mod=capped, block_mask=self.mask, scale=scale, enable_gqa=grouped)


@functools.cache
def _capped(softcap: float) -> Callable[..., torch.Tensor]:
    """FlexAttention's rule on scores.

    The bound is kept as text: of a number in a closure torch.compile makes an input of the kernel where shapes are
    dynamic, which FlexAttention does not compile with.
    """
    bound = repr(softcap)

    def cap(score: torch.Tensor, batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        return float(bound) * torch.tanh(score / float(bound))

    return cap


def _plain_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@functools.cache
def _compiled_flex() -> Any:
    return torch.compile(_plain_flex(), dynamic=True)


class FlashAttention:
    """flash-attn's varlen kernel. Its causal mask is aligned at the lower right, as a branch after its prompt needs."""

    def __init__(self, row: PackedRow, device: torch.device, window: int | None = None):
        self.window = window
        queries, keys, index = flash_sequences(row.segments)
        self.index = index.to(device, non_blocking=True)
        self.bounds = tuple(_bounds(lengths).to(device, non_blocking=True) for lengths in (queries, keys))
        self.most = max(queries), max(keys)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        from flash_attn import flash_attn_varlen_func

        tokens_first = [states[0].transpose(0, 1) for states in (query, key, value)]
        tokens_first[1:] = [states.index_select(0, self.index) for states in tokens_first[1:]]
        options: dict[str, Any] = {"softmax_scale": scale, "causal": True}
        if self.window is not None:
            options["window_size"] = (self.window - 1, 0)  # how many tokens before and after its own a query sees
        if softcap is not None:
            options["softcap"] = softcap
        out = flash_attn_varlen_func(*tokens_first, *self.bounds, *self.most, **options)
        return out.transpose(0, 1)[None]


def flash_sequences(segments: tuple[Segment, ...]) -> tuple[list[int], list[int], torch.Tensor]:
    """The row as sequences for a varlen kernel: numbers of queries, numbers of keys, and the index that gathers keys.

    A prompt with its first branch is one sequence; every other branch is one whose keys are its prompt's and its own.
    """
    queries, keys, index = [], [], []
    for segment in segments:
        first = segment.prompt + sum(segment.branches[:1])
        queries.append(first)
        keys.append(first)
        index.append(torch.arange(segment.start, segment.start + first))
        for span in spans([segment])[2:]:
            queries.append(span.end - span.start)
            keys.append(segment.prompt + queries[-1])
            index += [torch.arange(span.prompt_start, span.prompt_end), torch.arange(span.start, span.end)]
    return queries, keys, torch.cat(index)


def _bounds(lengths: list[int]) -> torch.Tensor:
    return torch.nn.functional.pad(torch.tensor(lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0))


BACKENDS: dict[Backend, Any] = {"sdpa": SegmentAttention, "flex": FlexAttention, "flash": FlashAttention}


def packed_mask(*args: Any, **kwargs: Any) -> Any:
    """transformers' mask function: what layers get as their attention mask. Made once per forward pass for each kind of
    layers; `local_size` is the window of sliding ones (0 is none, which Qwen2-MoE has)."""
    active = _active.get()
    if active is None:
        return sdpa_mask(*args, **kwargs)
    row, backend = active
    return BACKENDS[backend](row, kwargs["device"], kwargs.get("local_size") or None)


@torch.compiler.disable
def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function. Outside of `attending` it is plain sdpa, or capped as the model asks for.

    Raises:
        UserError: The model asks for something that packed attention does not compute.
    """
    if attention_mask is None or isinstance(attention_mask, torch.Tensor):
        if softcap is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        groups, causal = query.shape[1] // key.shape[1], attention_mask is None and query.shape[2] > 1
        keys, values = repeat_kv(key, groups), repeat_kv(value, groups)
        out = capped_attention(query, keys, values, attention_mask, causal, scale=scaling, softcap=softcap)
        return out.transpose(1, 2).contiguous(), None
    _check_plain(module, dropout, kwargs)
    states = (_narrowed(tensor) for tensor in (query, key, value))
    return attention_mask(*states, scaling, softcap).transpose(1, 2).contiguous(), None


def _narrowed(states: torch.Tensor) -> torch.Tensor:
    """In autocast its dtype, as torch's own attention does by itself: rotary positions leave float32 behind."""
    device = states.device.type
    return states.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else states


def _check_plain(module: torch.nn.Module, dropout: float, options: dict[str, Any]) -> None:
    unknown = [name for name in _UNKNOWN if options.get(name) is not None]
    if dropout:
        unknown.append(f"attention_dropout={dropout}")
    if unknown:
        raise UserError(f"{type(module).__name__}: {', '.join(unknown)}: not with training.engine=packed; padded works")


def _without_looking(find: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[..., torch.Tensor | None]:
    """transformers' search of positions for sequences that share a row, which waits for the GPU; the segments tell."""

    @functools.wraps(find)
    def find_packed(position_ids: torch.Tensor) -> torch.Tensor | None:
        return None if _active.get() else find(position_ids)

    return find_packed


masking_utils.find_packed_sequence_indices = _without_looking(masking_utils.find_packed_sequence_indices)
AttentionInterface.register(IMPLEMENTATION, packed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, packed_mask)
