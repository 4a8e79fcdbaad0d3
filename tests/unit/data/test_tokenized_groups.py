"""Pairs of a prompt become one row, however they lie in files."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pyarrow as pa
import pytest

from zephyr_ray.data.tokenized_groups import _measure, groups_of
from zephyr_ray.schemas import TOKENIZED

PROMPTS = {"a": [5, 6], "b": [7]}
ANSWERS = {"a": [[1], [2, 2], [3, 3, 3]], "b": [[4], []]}


def pairs() -> list[dict[str, Any]]:
    return [
        {"pair_id": f"{name}{chosen}{rejected}", "prompt_ids": PROMPTS[name]}
        | {"chosen_ids": ANSWERS[name][chosen], "rejected_ids": ANSWERS[name][rejected]}
        | dict.fromkeys(("prompt_truncated", "chosen_truncated", "rejected_truncated"), 0)
        for name in ("a", "b")
        for chosen, rejected in itertools.combinations(range(len(ANSWERS[name])), 2)
    ]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TOKENIZED)


def test_a_group_has_each_completion_once() -> None:
    found = {tuple(row["prompt_ids"]): row for row in groups_of(table(pairs())).to_pylist()}
    assert set(found) == {(5, 6), (7,)}
    group = found[5, 6]
    assert group["pair_ids"] == ["a01", "a02", "a12"]
    assert group["completions"] == ANSWERS["a"]
    assert list(zip(group["chosen"], group["rejected"], strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert found[(7,)]["completions"] == [[4], []]


@pytest.mark.parametrize("seed", [1, 2])
def test_groups_do_not_depend_on_how_pairs_lie(seed: int) -> None:
    rows = pairs()
    random.Random(seed).shuffle(rows)
    parts = [table(rows[:1]), table([]), table(rows[1:]).slice(0)]
    assert groups_of(*parts).equals(groups_of(table(pairs())))


def test_what_is_measured() -> None:
    made = groups_of(table(pairs()))
    found = {name: values.tolist() for name, values in _measure(made).items()}
    prompts = [tuple(row) for row in made["prompt_ids"].to_pylist()]
    by_group = dict(zip(prompts, zip(*found.values(), strict=True), strict=True))
    assert list(found) == ["completions", "pairs", "tokens", "tokens_pair_by_pair"]
    assert by_group == {(5, 6): (3, 3, 8, 6 + 12), (7,): (2, 1, 2, 2)}
