"""How many instructions begin alike."""

from __future__ import annotations

from zephyr_ray.data.diversity.openings import MOST_SHOWN, Opening, first_message, openings


def test_shares_by_hand() -> None:
    texts = ["What is the sea?", "what IS, the sky", "What was it?", "Sing"]
    assert openings(texts, [], 1) == [Opening("what", 0.75, None), Opening("sing", 0.25, None)]
    assert openings(texts, ["What is the", "Go on"], 3) == [
        Opening("what is the", 0.5, 0.5),
        Opening("sing", 0.25, 0.0),
        Opening("what was it", 0.25, 0.0),
    ]


def test_the_most_frequent_ones_are_shown() -> None:
    found = openings([f"{number} a" for number in range(30)] + ["7"], [], 1)
    assert len(found) == MOST_SHOWN
    assert found[0] == Opening("7", 2 / 31, None)


def test_the_users_first_message() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "user", "content": "v"}]
    assert first_message(messages) == "u"
    assert first_message(messages[:1]) == ""
