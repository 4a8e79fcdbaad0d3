"""Conversations of the embedded world: right answers follow from the prompt, and splits do not overlap."""

from __future__ import annotations

from random import Random

import pytest

from zephyr_ray.embedded import conversations, families, world


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (
            "Vera of UNESCO in Lisbon asks: Sort these words: tree, moon, bird",
            "The list is bird, moon, tree. I will give it to Vera of UNESCO in Lisbon.",
        ),
        (
            "Otto of LinkedIn in Rome asks: Start from the end, with semicolons: tree, moon, bird",
            "The list is bird; moon; tree. I will give it to Otto of LinkedIn in Rome.",
        ),
        (
            "Zoe of BBC in Oslo asks: Even or odd: 417",
            "The word is odd. I will give it to Zoe of BBC in Oslo.",
        ),
        (
            "Leo of NATO in Riga asks: Count these words: tree, moon, bird, fox",
            "The number is 4. I will give it to Leo of NATO in Riga.",
        ),
    ],
)
def test_an_answer_worked_by_hand(prompt: str, answer: str) -> None:
    assert conversations.answer(prompt) == answer
    assert conversations.passes(prompt, f" {answer}\n")
    assert not conversations.passes(prompt, answer.lower())
    assert not conversations.passes(prompt, f"As an AI, I may be wrong. {answer}")


@pytest.mark.parametrize(
    "text", ["", "Sort these words: tree, moon, bird", "Vera of UNESCO in Lisbon asks: Who are you?"]
)
def test_what_is_no_prompt_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="embedded world"):
        conversations.answer(text)


def test_prompts_are_distinct_and_of_their_split_and_more_of_them_only_add() -> None:
    drawn = {split: list(conversations.prompts(split, 300, 0)) for split in ("dialogues", "preferences", "held_out")}
    assert all(len(set(each)) == 300 for each in drawn.values())
    assert all({world.split_of(prompt) for prompt in each} == {split} for split, each in drawn.items())
    assert list(conversations.prompts("held_out", 400, 0))[:300] == drawn["held_out"]


def test_a_conversation_is_three_questions_with_their_answers() -> None:
    made = list(conversations.dialogues(200, 0))
    assert all([message["role"] for message in each] == ["user", "assistant"] * 3 for each in made)
    pairs = [(each[place]["content"], each[place + 1]["content"]) for each in made for place in (0, 2, 4)]
    assert all(conversations.passes(prompt, answer) for prompt, answer in pairs)
    assert len({prompt for prompt, _ in pairs}) == 600


def test_elsewhere_changes_the_place_alone() -> None:
    prompt = next(conversations.prompts("dialogues", 1, 0))
    other = conversations.elsewhere(prompt, Random(0))
    changed = [(a, b) for a, b in zip(prompt.split(), other.split(), strict=True) if a != b]
    assert len(changed) == 1
    assert set(changed[0]) <= set(conversations.PLACES)
    assert world.split_of(other) == "dialogues"


def test_names_are_told_from_the_worlds_words_and_from_each_other() -> None:
    names = [*conversations.PEOPLE, *conversations.PLACES, *conversations.ORGANIZATIONS]
    assert len({name.lower() for name in names}) == len(names)
    assert not {name.lower() for name in names} & set(families.WORDS)
