"""Which prompts a round answers."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.round_prompts import round_of, to_rows
from zephyr_ray.schemas import PROMPTS


def prompts(ids: list[str]) -> pa.Table:
    rows = [
        {"prompt_id": each, "messages": [{"role": "user", "content": each}], "source": f"file:{number}"}
        for number, each in enumerate(ids)
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


@given(st.lists(st.text(min_size=1), max_size=20, unique=True), st.integers(0, 99), st.integers(1, 5))
def test_each_prompt_is_kept_by_one_round(ids: list[str], seed: int, rounds: int) -> None:
    kept: list[str] = []
    for number in range(1, rounds + 1):
        rows = to_rows(prompts(ids), seed=seed, number=number, rounds=rounds)
        assert rows.schema.names == mixed_schema(PROMPTS).names
        assert rows.num_rows == len(ids)
        mine = [row for row in rows.to_pylist() if row["reason"] is None]
        assert all(row["detail"] is None for row in mine)
        others = [row for row in rows.to_pylist() if row["reason"] is not None]
        assert {row["reason"] for row in others} <= {"not_selected"}
        assert all(row["detail"] == f"of round {round_of(row['prompt_id'], seed, rounds)}" for row in others)
        kept += [row["prompt_id"] for row in mine]
    assert sorted(kept) == sorted(ids)


def test_shares_are_about_equal_and_others_for_another_seed() -> None:
    ids = [f"{number:032x}" for number in range(3000)]
    shares = [[round_of(each, seed, 3) for each in ids] for seed in (0, 1)]
    for share in shares:  # of binomials with mean 1000 and standard deviation 26
        assert all(abs(share.count(number) - 1000) < 130 for number in (1, 2, 3))
    same = sum(one == other for one, other in zip(*shares, strict=True))
    assert abs(same - 1000) < 130
