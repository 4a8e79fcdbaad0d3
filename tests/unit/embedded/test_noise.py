"""Planted noise: so much of each kind as is said, known row by row, and each wording of a disclaimer is found alone."""

from __future__ import annotations

from collections import Counter

import pytest

from zephyr_ray.config.cleaning import Refusals
from zephyr_ray.data.cleaning import refusals
from zephyr_ray.embedded import conversations, noise
from zephyr_ray.schemas import Dropped, Reason

ROWS = noise.rows(0, 1000)


def runs_of(row: list[dict[str, str]]) -> set[tuple[str, ...]]:
    """The runs of five words."""
    text = " ".join(message["content"] for message in row).lower()
    words = "".join(each if each.isalnum() else " " for each in text).split()
    return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}


def planted(kind: noise.Kind) -> list[noise.Row]:
    return [row for row in ROWS if row.planted == kind]


def test_every_kind_has_its_share() -> None:
    counts = Counter(row.planted for row in ROWS)
    assert counts.pop(None) == 780
    assert counts == {kind: 1000 * share for kind, share in noise.SHARES.items()}


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    assert noise.rows(0, 1000) == ROWS
    assert noise.rows(1, 1000) != ROWS
    assert [row["messages"] for row in noise.dialogues(0, 1000)] == [row.messages for row in ROWS]


def test_without_noise_the_conversations_are_the_originals_each_once() -> None:
    clean = [row["messages"] for row in noise.dialogues(0, 1000, planted=False)]
    assert len({str(each) for each in clean}) == len(clean) == 900
    assert all(conversations.passes(*(m["content"] for m in each[at : at + 2])) for each in clean for at in (0, 2, 4))


def test_rows_without_noise_and_originals_are_right() -> None:
    for row in ROWS:
        assert row.planted is not None or row.messages == row.original
        assert row.original == conversations.messages([message["content"] for message in row.original[::2]])


def test_a_copy_is_of_a_row_that_is_there_without_noise() -> None:
    there = [row.original for row in ROWS if row.planted is None]
    copied = [row.original for kind in ("duplicate", "near_duplicate") for row in planted(kind)]
    assert all(each in there for each in copied)
    assert len({str(each) for each in copied}) == len(copied)
    assert all(row.messages == row.original for row in planted("duplicate"))


def test_near_duplicates_are_near() -> None:
    for row in planted("near_duplicate"):
        here, there = runs_of(row.messages), runs_of(row.original)
        assert 0.7 < len(here & there) / len(here | there) < 1


def test_wrong_case_takes_every_capital_but_the_first() -> None:
    for row in planted("wrong_case"):
        changed = [m["content"] for m, was in zip(row.messages, row.original, strict=True) if m != was]
        assert [answer[1:].islower() for answer in changed] == [True] * conversations.TURNS


def test_benchmark_rows_hold_one_of_the_prompts_and_no_other_row_does() -> None:
    prompts = set(noise.benchmark_prompts())
    held = [sum(message["content"] in prompts for message in row.messages) for row in ROWS]
    assert all(number == (row.planted == "benchmark") for number, row in zip(held, ROWS, strict=True))
    assert len(prompts) == noise.BENCHMARK_PROMPTS
    assert not prompts & set(noise.held_out_prompts(300))


@pytest.mark.parametrize("wording", noise.DISCLAIMERS)
def test_every_wording_of_a_disclaimer_is_found_alone(wording: str) -> None:
    step = refusals.step(Refusals(type="refusals", disclaimers="dialogue"))
    for row in [row for row in ROWS if row.planted is None][:20]:
        prompt, answer, *rest = row.messages
        content = noise.with_disclaimer(answer["content"], wording)
        with pytest.raises(Dropped) as dropped:
            step([prompt, {**answer, "content": content}, *rest])
        assert dropped.value.reason == Reason.DISCLAIMER
