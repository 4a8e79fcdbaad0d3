"""Part 6: where the time of one of our steps goes, and how often it waits for the GPU."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from dpo_runs import Counter
from gpu_parts.bench import Bench, Record, release
from gpu_parts.models import make_model
from gpu_parts.training import WARM_EPOCHS, Contender, Task, build
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from zephyr_ray.training.layers import compile_layers

# What a kernel's name has in it; the first kind that fits counts.
KINDS = {
    "attention": ("flex_attention", "triton_tem", "flash", "fmha", "sdpa"),
    "softmax of the head": ("_forward_kernel", "_backward_kernel"),
    "optimizer and norm of gradients": ("FusedAdam", "multi_tensor_apply"),
    "products": ("gemm", "nvjet", "cutlass", "cublas", "xmma", "::mm", "addmm", "matmul", "bmm"),
    "copies": ("Memcpy", "Memset"),
}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::item", "cudaLaunchKernel")
IDLE_MICROSECONDS = 100


class OneStep(TrainerCallback):
    """Profiles the first step after the warm-up."""

    def __init__(self, warm: int, on_gpu: bool):
        self.warm = warm
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        self.profile = profile(activities=activities)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.warm:
            self.profile.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.warm + 1:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.profile.stop()
            control.should_training_stop = True


def where_time_goes(bench: Bench) -> Iterator[Record]:
    sizes = bench.sizes
    task = Task(sizes.layers, bench.pairs, sizes.global_batch)
    for contender in (
        Contender("ours", True, sizes.budget, False),
        Contender("ours, layers compiled", True, sizes.budget, False, compiles_layers=True),
        Contender("TRL precomputed, not recomputing, batch 4", False, 4, False),
    ):
        if bench.left() < 20:
            yield {"contender": contender.name, "skipped": f"{bench.left():.0f} s are left"}
            continue
        release()
        callback = OneStep(WARM_EPOCHS * task.steps_per_epoch, bench.on_gpu)
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(bench, task.layers, torch.bfloat16)
            trainer, _ = build(bench, task, contender, model, Counter(), folder)
            trainer.add_callback(callback)
            if contender.compiles_layers:
                compile_layers(model)
            trainer.train()
        yield {"contender": contender.name, **shares(callback.profile, bench.on_gpu)}
        del model, trainer, callback


def shares(profiled: Any, on_gpu: bool) -> Record:
    """Shares of the device's busy time by kind, its idle share, and the calls that wait for it."""
    events = list(profiled.events())
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    kernels = [event for event in events if event.device_type == wanted and not is_annotation(event)]
    if not on_gpu:  # calls nest there: only those that call no other
        kernels = [event for event in kernels if not event.cpu_children]
    names = [event.name for event in events]
    calls = {name: names.count(name) for name in WAITS}
    if not kernels:
        return {"kernels": 0, "calls": calls, "note": "the profiler saw none of the GPU's kernels"}
    spent: dict[str, float] = defaultdict(float)
    longest: dict[str, float] = defaultdict(float)
    for event in kernels:
        spent[kind_of(event.name)] += event.time_range.elapsed_us()
        longest[event.name[:90]] += event.time_range.elapsed_us()
    busy = sum(spent.values())
    return {
        "busy_ms": round(busy / 1e3, 2),
        "shares": {name: round(value / busy, 4) for name, value in sorted(spent.items(), key=lambda one: -one[1])},
        "kernels": len(kernels),
        **gaps(kernels),
        "calls": calls,
        "longest_ms": largest_ms(longest, 20),
    }


def largest_ms(microseconds: dict[str, float], count: int) -> dict[str, float]:
    found = sorted(microseconds.items(), key=lambda one: -one[1])[:count]
    return {name: round(value / 1e3, 2) for name, value in found}


def is_annotation(event: Any) -> bool:
    """Whether an event on the GPU's line is a name for a stretch of time rather than a kernel."""
    marks = ("ProfilerStep", "Optimizer.", "Torch-Compiled", "CompiledFunction", "##", "nccl:")
    return getattr(event, "is_user_annotation", False) or any(mark in event.name for mark in marks)


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "elementwise and norms")


def gaps(kernels: list[Any]) -> Record:
    """How long the device did nothing between its first and its last kernel, and for which kernels."""
    spans = sorted((event.time_range.start, event.time_range.end, event.name) for event in kernels)
    end, idle = spans[0][1], []
    waited: dict[str, float] = defaultdict(float)
    for start, stop, name in spans:
        if start > end:
            idle.append(start - end)
            waited[name[:90]] += start - end
        end = max(end, stop)
    whole = end - spans[0][0]
    long = sorted((gap for gap in idle if gap > IDLE_MICROSECONDS), reverse=True)
    return {
        "span_ms": round(whole / 1e3, 2),
        "idle_share": round(sum(idle) / whole, 4),
        "long_gaps": len(long),
        "long_gaps_ms": round(sum(long) / 1e3, 2),
        "longest_gaps_ms": [round(gap / 1e3, 2) for gap in long[:8]],
        "waited_for_ms": largest_ms(waited, 12),
    }
