"""Components are those of a search over the graph."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.cleaning.union_find import components


def search(edges: list[tuple[int, int]]) -> dict[int, int]:
    """The smallest number that can be reached from each."""
    nodes = {node for edge in edges for node in edge}
    found = {}
    for node in nodes:
        reached, border = {node}, [node]
        while border:
            here = border.pop()
            near = {end for edge in edges if here in edge for end in edge} - reached
            reached |= near
            border += near
        found[node] = min(reached)
    return found


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=15))
def test_as_a_search_finds_them(edges: list[tuple[int, int]]) -> None:
    ends = np.array(edges, np.int64).reshape(-1, 2)
    nodes, roots = components(ends[:, 0], ends[:, 1])
    assert nodes.tolist() == sorted(nodes.tolist())
    assert dict(zip(nodes.tolist(), roots.tolist(), strict=True)) == search(edges)


def test_a_long_chain_in_any_order_is_one_component() -> None:
    ends = np.random.default_rng(0).permutation(10_000)
    nodes, roots = components(ends, ends + 1)
    assert (len(nodes), set(roots.tolist())) == (10_001, {0})
