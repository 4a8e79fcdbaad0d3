"""Part 7: what else the engine could gain, and all weights of a whole 7-billion model without its optimizer."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_parts.bench import Bench, Record
from gpu_parts.training import Contender, Task, race


def extras(bench: Bench) -> Iterator[Record]:
    sizes = bench.sizes
    compiled_layers = Task(sizes.layers, bench.pairs, sizes.global_batch)
    yield from race(
        bench,
        compiled_layers,
        [
            Contender("ours", True, sizes.budget, False),
            Contender("ours, layers compiled", True, sizes.budget, False, compiles_layers=True),
        ],
        {},
    )
    # SGD keeps nothing beside the weights: with Adam's moments they would not fit.
    whole = Task(sizes.lora_layers, bench.pairs[: sizes.lora_pairs], sizes.lora_global_batch, optimizer="sgd")
    yield from race(
        bench,
        whole,
        [
            Contender("ours, 7B without Adam, recomputing", True, sizes.budget, True),
            Contender("ours, 7B without Adam", True, sizes.budget // 2, False),
        ],
        {},
    )
