"""The embedded world: every right answer follows from the prompt's text, and every flaw is told from it."""

from collections import Counter
from itertools import islice
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zephyr_ray.embedded import families, world

seeds = st.integers(min_value=0, max_value=2**32)
instructions = seeds.map(lambda seed: families.draw(Random(seed)))
flaws = st.sampled_from(["disclaimer", "refusal", "chatter", "case", "format", "wrong"])


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("Sort these words: tree, moon, bird", "bird, moon, tree"),
        ("Sort these words, one per line: tree, moon, bird", "bird\nmoon\ntree"),
        ("List these words backwards, with semicolons: tree, moon, bird", "bird; moon; tree"),
        ("Start from the end, with commas: tree, moon, bird", "bird, moon, tree"),
        ("What is the first word, in capitals: tree, moon, bird", "TREE"),
        ("Which word ends this list: tree, moon, bird", "bird"),
        ("Keep each word once: tree, moon, tree", "tree, moon"),
        ('Leave out "moon", in upper case: tree, moon, bird', "TREE, BIRD"),
        ("Count these words: tree, moon, bird, fox", "4"),
        ("Sort these letters: q, b, k", "b, k, q"),
        ("Spell it backwards: q, b, k", "k, b, q"),
        ("Keep only the vowels, in capitals: a, k, e", "A, E"),
        ('Count the letter "k": k, b, k', "2"),
        ("Which number is the largest: 3, 8, 5", "8"),
        ("Even or odd: 417", "odd"),
    ],
)
def test_solve_hand_worked(instruction: str, answer: str) -> None:
    assert world.solve(instruction) == answer


@pytest.mark.parametrize(
    "instruction",
    [
        "",
        "Who are you?",
        "Sort these words",
        "Sort these pears: tree, moon, bird",
        "Count these words, one per line: tree, moon, bird",
        "What is the first word, one per line: tree, moon, bird",
    ],
)
def test_solve_refuses_what_is_no_prompt_of_this_world(instruction: str) -> None:
    with pytest.raises(ValueError, match="embedded world"):
        world.solve(instruction)


def test_each_phrasing_belongs_to_one_family() -> None:
    phrasings = [phrasing for family in families.FAMILIES for phrasing in family.phrasings]
    assert len(phrasings) == len(set(phrasings))


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("bird, moon, tree", 10),
        (" bird, moon, tree\n", 10),
        ("bird\nmoon\ntree", 8),
        ("bird, moon, tree.", 8),
        ("BIRD, MOON, TREE", 7),
        ("Bird; Moon; Tree", 5),
        ("Of course! bird, moon, tree", 6),
        ("bird, moon, tree\nI hope this helps!", 6),
        ("As an AI, I have no opinions. bird, moon, tree", 5),
        ("As an AI, I have no opinions. BIRD, MOON, TREE", 2),
        ("As an AI, I have no opinions. BIRD; MOON; TREE", 2),
        ("I am sorry, but I cannot help with that.", 1),
        ("tree, moon, bird", 1),
        ("bird, moon", 1),
        ("ant. bird, moon, tree", 1),
        ("bird, moon, tree, ant", 1),
        ("", 1),
    ],
)
def test_rate_hand_worked(answer: str, score: float) -> None:
    assert world.rate("Sort these words: tree, moon, bird", answer) == score


def test_rate_asks_for_capitals_where_the_prompt_does() -> None:
    assert world.rate("Which word leads, in capitals: tree, moon, bird", "TREE") == 10
    assert world.rate("Which word leads, in capitals: tree, moon, bird", "tree") == 7


def test_passes_ignores_outer_whitespace_only() -> None:
    instruction = "Sort these words, one per line: tree, moon"
    assert world.passes(instruction, "\nmoon\ntree ")
    assert not world.passes(instruction, "moon \ntree")


@given(instructions)
def test_the_right_answer_passes(instruction: str) -> None:
    assert world.passes(instruction, world.solve(instruction))
    assert world.rate(instruction, world.solve(instruction)) == 10


@given(instructions, flaws, seeds)
def test_a_flawed_answer_fails(instruction: str, flaw: world.Flaw, seed: int) -> None:
    answer = world.respond(instruction, flaw, Random(seed))
    assert not world.passes(instruction, answer)
    expected = {"disclaimer": {5}, "refusal": {1}, "chatter": {6}, "case": {7, 8}, "format": {8}, "wrong": {1}}
    assert world.rate(instruction, answer) in expected[flaw]


@given(instructions, st.text(max_size=40))
def test_rate_takes_any_text(instruction: str, answer: str) -> None:
    assert 1 <= world.rate(instruction, answer) <= 10
    assert (world.rate(instruction, answer) == 10) == world.passes(instruction, answer)


@settings(max_examples=20)
@given(seeds, seeds)
def test_splits_are_disjoint_and_prompts_unique(first: int, second: int) -> None:
    drawn = {split: list(world.prompts(split, 40, first)) for split in get_args(world.Split)}
    for split, texts in drawn.items():
        assert len(set(texts)) == 40
        assert {world.split_of(text) for text in (*texts, *world.prompts(split, 10, second))} == {split}


def test_prompts_of_a_larger_count_begin_with_those_of_a_smaller() -> None:
    assert list(world.prompts("held_out", 10, 3)) == list(islice(world.prompts("held_out", 500, 3), 10))
    assert list(world.prompts("held_out", 10, 3)) != list(world.prompts("held_out", 10, 4))


def test_prompts_ends_when_the_world_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "draw", lambda rng: "Even or odd: 17")
    split = world.split_of("Even or odd: 17")
    with pytest.raises(ValueError, match=f"no more than 1 {split} prompts"):
        list(world.prompts(split, 2, 0))


def test_dialogues_have_the_share_of_flaws_asked_for() -> None:
    rows = list(world.dialogues(2000, 0, 0.4))
    passed = [world.passes(*(message["content"] for message in row["messages"])) for row in rows]
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    assert sum(passed) / 2000 == pytest.approx(0.6, abs=0.045)  # four standard deviations of a share of 2000 draws
    assert all(world.split_of(row["messages"][0]["content"]) == "dialogues" for row in rows)
    assert rows == list(world.dialogues(2000, 0, 0.4))
    assert {row["source"] for row in rows} == {f"tiny:{family.name}" for family in families.FAMILIES}


@pytest.mark.parametrize(("flawed", "passed"), [(0.0, 50), (1.0, 0)])
def test_dialogues_at_the_ends_of_the_share(flawed: float, passed: int) -> None:
    rows = world.dialogues(50, 1, flawed)
    assert sum(world.passes(*(message["content"] for message in row["messages"])) for row in rows) == passed


def test_completions_are_scored_by_rate_in_ultrafeedbacks_layout() -> None:
    rows = list(world.completions(300, 0))
    assert rows == list(world.completions(300, 0))
    for row in rows:
        models = [completion["model"] for completion in row["completions"]]
        assert len(set(models)) == 4
        assert "tiny-careful" in models
        assert world.split_of(row["instruction"]) == "preferences"
        for completion in row["completions"]:
            assert completion["overall_score"] == world.rate(row["instruction"], completion["response"])


def test_completions_show_each_models_own_flaw() -> None:
    scores: dict[str, Counter[float]] = {model: Counter() for model in world.MODELS}
    for row in world.completions(600, 1):
        for completion in row["completions"]:
            scores[completion["model"]][completion["overall_score"]] += 1
    most = {model: counts.most_common(1)[0][0] for model, counts in scores.items()}
    assert most["tiny-careful"] == 10
    assert (most["tiny-chatty"], most["tiny-lawyer"], most["tiny-timid"]) == (6, 5, 1)


def test_profiles_are_shares() -> None:
    assert all(sum(profile.values()) <= 1 for profile in world.MODELS.values())


def test_digits_have_no_case_so_that_flaw_becomes_one_of_format() -> None:
    instruction = "Count these words: tree, moon, bird"
    assert world.rate(instruction, world.respond(instruction, "case", Random(0))) == 8
