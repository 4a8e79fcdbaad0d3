"""Parts 7 and 10: compiled layers, and all weights of a whole 7-billion model without its optimizer."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_parts.bench import Bench, Record
from gpu_parts.training import Contender, Task, race


def compiled_layers(bench: Bench) -> Iterator[Record]:
    """All weights of a model of 2 billion, then an adapter on one of 7 billion, each with and without compiling."""
    sizes = bench.sizes
    full = Task(sizes.layers, bench.pairs, sizes.global_batch)
    lora = Task(sizes.lora_layers, bench.pairs[: sizes.lora_pairs], sizes.lora_global_batch, lora=True)
    for task, budgets in ((full, [sizes.budget]), (lora, [sizes.budget // 2, sizes.budget])):
        compiled = [
            Contender(f"ours, layers compiled, budget {budget}", True, budget, False, compiles_layers=True)
            for budget in budgets
        ]
        yield from race(bench, task, [*compiled, Contender("ours", True, budgets[0], False)], {})


def whole_model(bench: Bench) -> Iterator[Record]:
    """SGD keeps nothing beside the weights: with Adam's moments they would not fit."""
    sizes = bench.sizes
    pairs = bench.pairs[: sizes.lora_pairs]
    task = Task(sizes.lora_layers, pairs, sizes.lora_global_batch, optimizer="sgd")
    contenders = [
        Contender("ours, 7B without Adam, recomputing", True, sizes.budget, True),
        Contender("ours, 7B without Adam", True, sizes.budget // 2, False),
    ]
    yield from race(bench, task, contenders, {})
