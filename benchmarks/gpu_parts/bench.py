"""What the parts of benchmarks/gpu.py share: sizes, pairs, the time that is left, seconds and memory of a device."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from dpo_pairs import drawn_pairs
from torch._dynamo.utils import counters

Pairs = list[dict[str, list[int]]]
Record = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large everything is. Rows and budgets are in tokens."""

    hidden: int = 4096
    inner: int = 14336
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    vocab: int = 32_000
    product: int = 8192
    copied_bytes: int = 2**32
    kernel_rows: tuple[int, ...] = (1024, 4096, 8192)
    kernel_lengths: int = 20
    longest: int = 1024
    exact_layers: int = 2
    exact_pairs: int = 12
    noise_layers: int = 4
    pairs: int = 64
    budget: int = 8192
    global_batch: int = 32
    layers: int = 8
    lora_layers: int = 32
    lora_pairs: int = 32
    lora_global_batch: int = 16
    prompts: int = 16
    prompts_per_step: int = 8


TINY = Sizes(
    hidden=64,
    inner=96,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocab=4096,
    product=256,
    copied_bytes=2**20,
    kernel_rows=(256, 384),
    kernel_lengths=3,
    longest=40,
    exact_layers=1,
    exact_pairs=4,
    noise_layers=2,
    pairs=8,
    budget=256,
    global_batch=4,
    layers=2,
    lora_layers=2,
    lora_pairs=4,
    lora_global_batch=2,
    prompts=4,
    prompts_per_step=2,
)
"""Of the same shape, for a try on a CPU."""


@dataclass
class Bench:
    """One run of the benchmark.

    Attributes:
        ends: When it has to be done, by `time.monotonic`.
        flex: Whether FlexAttention's kernel works here, forward and backward.
        found: What parts leave for later ones, by name.
    """

    device: str
    sizes: Sizes
    pairs: Pairs
    ends: float
    flex: bool
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def backend(self) -> Any:
        return "flex" if self.flex else "sdpa"

    def left(self) -> float:
        return self.ends - time.monotonic()


def load_pairs(path: Path | None, sizes: Sizes) -> tuple[Pairs, str]:
    """Tokenized pairs and where they are from: the kit's real ones, or drawn lengths."""
    if path is not None and path.exists():
        pairs, source = json.loads(path.read_text()), path.name
    else:
        pairs, source = drawn_pairs(sizes.pairs), "drawn"
    half = sizes.longest // 2
    cut = {"prompt_ids": slice(-half, None), "chosen_ids": slice(half), "rejected_ids": slice(half)}
    if sizes is not TINY:
        return pairs[: sizes.pairs], source
    return [{name: pair[name][part] for name, part in cut.items()} for pair in pairs[: sizes.pairs]], source


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of a call, until the device is done with it."""
    synchronize()
    begun = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - begun


def release() -> None:
    """Gives all memory back that nothing refers to any more, and starts the peaks anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> Record:
    """The GPU's peaks since `release`: what tensors took, and what torch had taken for them."""
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
    }


def compiled() -> int:
    """Graphs that torch.compile has made in this process."""
    return counters["stats"]["unique_graphs"]


def round_all(values: Record, digits: int = 6) -> Record:
    return {name: round(value, digits) if isinstance(value, float) else value for name, value in values.items()}


def batches(count: int, size: int) -> Iterator[list[int]]:
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))
