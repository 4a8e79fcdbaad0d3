"""Seeds and draws: the same for the same request, never shared within a prompt, evenly spread."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zephyr_ray.config.member_seeds import find_clash, member_bits
from zephyr_ray.inference.seeds import SEED_BITS, draw_members, request_seed

names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)


@given(names, st.integers(0, 2**64), st.text(max_size=20), st.integers(1, 40))
def test_no_two_requests_for_a_prompt_share_a_seed(members: list[str], run: int, prompt: str, samples: int) -> None:
    assume(find_clash(members) is None)
    seeds = [request_seed(run, prompt, member, sample) for member in members for sample in range(samples)]
    assert all(0 <= seed < 2**SEED_BITS for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    # torch's generator on a CPU reads 32 bits of a seed.
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)


def test_all_samples_that_a_recipe_allows_have_seeds_of_their_own() -> None:
    seeds = {request_seed(0, "p", member, sample) % 2**32 for member in ("a", "b") for sample in range(4096)}
    assert len(seeds) == 2 * 4096
    with pytest.raises(ValueError, match=r"sample 4096 is not in \[0, 4096\)"):
        request_seed(0, "p", "a", 4096)


def test_run_and_prompt_change_the_seed() -> None:
    assert len({request_seed(run, prompt, "a", 0) for run in range(10) for prompt in "pqrst"}) == 50


def test_another_process_makes_the_same_seed() -> None:
    code = "from zephyr_ray.inference.seeds import *; print(request_seed(1, 'p', 'a', 2), member_bits('a'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(request_seed(1, "p", "a", 2)), str(member_bits("a"))]


def test_names_that_would_share_seeds_are_found() -> None:
    assert find_clash(["a", "b", "a"]) == ("a", "a")
    assert find_clash(["a", "b"]) is None
    seen: dict[int, str] = {}
    for number in range(100_000):  # 2^20 places: two of so many names fall on one
        name = f"m{number}"
        other = seen.setdefault(member_bits(name), name)
        if other != name:
            break
    assert find_clash([other, "a", name]) == (other, name)
    assert request_seed(0, "p", other, 3) == request_seed(0, "p", name, 3)


@given(names, st.integers(0, 9), st.text(max_size=9), st.data())
def test_a_draw_is_distinct_members_whatever_the_order_of_the_pool(
    members: list[str], run: int, prompt: str, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(members)))
    drawn = draw_members(run, prompt, members, count)
    assert len(set(drawn)) == count
    assert drawn == [member for member in members if member in drawn]
    shuffled = data.draw(st.permutations(members))
    assert set(draw_members(run, prompt, shuffled, count)) == set(drawn)


def test_every_pair_of_members_is_drawn_about_as_often() -> None:
    counts = Counter(tuple(draw_members(0, f"prompt {n}", ["a", "b", "c", "d"], 2)) for n in range(6_000))
    assert len(counts) == 6
    # 1,000 each with a standard deviation of 29.
    assert all(abs(count - 1_000) < 130 for count in counts.values())
