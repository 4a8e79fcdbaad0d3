"""Part 1: FlexAttention's compiled kernel on packed rows against a dense mask in float64, forward and backward."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator

import torch
from gpu_parts.bench import Bench, Record, compiled, release, round_all, seconds

from zephyr_ray.training.packed.attention import FlexAttention
from zephyr_ray.training.packed.layout import PackedRow, pack, visible

PROMPTS = (1, 127, 128, 129)  # a block's border lies at 128
BOUNDS = {torch.bfloat16: 1e-2, torch.float32: 1e-4}


def flex_kernel(bench: Bench) -> Iterator[Record]:
    flex, bench.flex = bench.flex, False  # the later parts do without a kernel that does not compile
    narrow = compare(bench, torch.bfloat16)
    bench.flex = flex
    yield narrow
    graphs = compilations(bench)
    yield graphs
    release()
    wide = compare(bench, torch.float32)
    yield wide
    passed = all(record["passed"] for record in (narrow, graphs, wide))
    yield {"passed": passed, "backward": bench.on_gpu or "not on a CPU: torch has no backward of this kernel there"}


def compare(bench: Bench, dtype: torch.dtype) -> Record:
    """The largest relative errors over the rows, the seconds that the first call took with its compilation, and the
    median seconds of a later one on the largest row."""
    errors: dict[str, float] = {}
    record: Record = {"dtype": str(dtype), "rows": list(bench.sizes.kernel_rows)}
    for number, tokens in enumerate(bench.sizes.kernel_rows):
        row = kernel_row(tokens, number)
        states = random_states(bench, tokens)
        narrow = [state.detach().to(dtype).requires_grad_(bench.on_gpu) for state in states[:3]]
        exact = dense(row, states, bench.on_gpu)
        attend = FlexAttention(row, torch.device(bench.device))
        if number == 0:
            record["first_call_seconds"] = seconds(lambda a=attend, n=narrow, s=states: results(a, n, s[3]))
        found = results(attend, narrow, states[3])
        for name, ours, theirs in zip(("out", "dq", "dk", "dv"), found, exact, strict=False):
            errors[name] = max(errors.get(name, 0.0), relative_error(ours, theirs))
        if tokens == max(bench.sizes.kernel_rows):
            again = [seconds(lambda a=attend, n=narrow, s=states: results(a, n, s[3])) for _ in range(5)]
            record["ms"] = statistics.median(again) * 1e3
    record |= {f"error_{name}": value for name, value in errors.items()}
    return round_all(record, 8) | {"passed": all(value < BOUNDS[dtype] for value in errors.values())}


def compilations(bench: Bench) -> Record:
    """How many more graphs rows of other lengths take, one-block rows among them, with gradients and without."""
    before = compiled()
    lengths = [128 * (1 + number) for number in range(bench.sizes.kernel_lengths)]
    found = {}
    for name, gradients in (("without gradients", False), ("with gradients", True)):
        if gradients and not bench.on_gpu:
            continue
        for number, tokens in enumerate(lengths):
            states = random_states(bench, tokens)
            attend = FlexAttention(kernel_row(tokens, number), torch.device(bench.device))
            results(attend, [state.detach().requires_grad_(gradients) for state in states[:3]], states[3])
        found[name] = compiled() - before
        before = compiled()
    return {"lengths": len(lengths), "graphs": found, "passed": all(count <= 2 for count in found.values())}


def kernel_row(tokens: int, seed: int) -> PackedRow:
    """A row of exactly so many tokens: prompts around a block's border with three branches each, then filler."""
    drawn = random.Random(seed)
    prompts: list[list[int]] = []
    branches: list[list[list[int]]] = []
    used = 0
    for prompt in itertools.cycle(PROMPTS):
        group = [drawn.randint(1, min(300, tokens // 4)) for _ in range(3)]
        used += prompt + sum(group)
        if used > tokens:
            break
        prompts.append([1] * prompt)
        branches.append([[1] * length for length in group])
    return pack(prompts or [[1]], branches or [[]], tokens)


def random_states(bench: Bench, tokens: int) -> list[torch.Tensor]:
    """Query, key, value and the gradient of the output, as a model lays them out, of values that bfloat16 has."""
    sizes, generator = bench.sizes, torch.Generator(bench.device).manual_seed(tokens)
    heads = (sizes.heads, sizes.kv_heads, sizes.kv_heads, sizes.heads)
    shapes = [(1, tokens, count, sizes.head_dim) for count in heads]
    drawn = [torch.randn(shape, device=bench.device, generator=generator).bfloat16() for shape in shapes]
    return [states.transpose(1, 2) for states in drawn]


def results(attend: FlexAttention, states: list[torch.Tensor], gradient: torch.Tensor) -> list[torch.Tensor]:
    """The output and, where the states want them, their gradients."""
    query, key, value = states
    out = attend(query, key, value, query.shape[-1] ** -0.5)
    if not query.requires_grad:
        return [out]
    return [out.detach(), *torch.autograd.grad(out, states, gradient.to(out.dtype))]


def dense(row: PackedRow, states: list[torch.Tensor], gradients: bool) -> list[torch.Tensor]:
    """The same in float64 with one dense mask, a group of heads that share their keys at a time."""
    query, key, value, gradient = (tensor[0].double() for tensor in states)
    seen, scale = visible(row.segments).to(query.device), query.shape[-1] ** -0.5
    groups = query.shape[0] // key.shape[0]
    parts = []
    for number in range(key.shape[0]):
        own = slice(number * groups, (number + 1) * groups)
        inputs = [tensor.clone().requires_grad_(gradients) for tensor in (query[own], key[number], value[number])]
        scores = (inputs[0] @ inputs[1].T * scale).masked_fill(~seen, float("-inf"))
        out = scores.softmax(dim=-1) @ inputs[2]
        found = torch.autograd.grad(out, inputs, gradient[own]) if gradients else ()
        parts.append([out.detach(), *found])
    joined = list(zip(*parts, strict=True))
    # keys and values have one head a group, which was cut off
    return [torch.cat(tensors) for tensors in joined[:2]] + [torch.stack(tensors) for tensors in joined[2:]]


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    difference = found[0].double() - exact
    return float(difference.norm() / exact.norm())
