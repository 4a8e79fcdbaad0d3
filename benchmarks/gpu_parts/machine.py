"""Part 0: what the machine is, and how fast it multiplies and copies."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import subprocess
from collections.abc import Iterator
from typing import Any

import torch
from gpu_parts.bench import Bench, Record, round_all, seconds

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "trl",
    "datasets",
    "accelerate",
    "peft",
    "pyarrow",
    "numpy",
    "huggingface_hub",
)


def machine(bench: Bench) -> Iterator[Record]:
    yield {"python": platform.python_version(), "packages": versions(), "gpu": gpu()}
    sizes, dtype = bench.sizes, torch.bfloat16
    rates = {
        "product_tflops": product_rate(bench, sizes.product, sizes.product, sizes.product, dtype),
        "layer_product_tflops": product_rate(bench, sizes.product, sizes.hidden, sizes.inner, dtype),
        "copy_tb_per_s": copy_rate(bench),
    }
    bench.found["product_flops"] = rates["product_tflops"] * 1e12
    yield round_all(rates, 3)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def gpu() -> Any:
    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    found = {"name": card.name, "gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
    try:
        found["driver, power limit, clock"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        found["driver, power limit, clock"] = str(error)
    return found


def product_rate(bench: Bench, rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of random matrices, the median of several tries."""
    left = torch.randn(rows, inner, device=bench.device, dtype=dtype)
    right = torch.randn(inner, columns, device=bench.device, dtype=dtype)
    out = torch.empty(rows, columns, device=bench.device, dtype=dtype)
    repeats = 10 if bench.on_gpu else 1

    def work() -> None:
        for _ in range(repeats):
            torch.mm(left, right, out=out)

    work()
    taken = statistics.median(seconds(work) for _ in range(5))
    return repeats * 2 * rows * inner * columns / taken / 1e12


def copy_rate(bench: Bench) -> float:
    """TB/s of a copy within the device, counting what is read and what is written."""
    source = torch.empty(bench.sizes.copied_bytes, device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    target.copy_(source)
    taken = statistics.median(seconds(lambda: target.copy_(source)) for _ in range(5))
    return 2 * source.numel() / taken / 1e12
