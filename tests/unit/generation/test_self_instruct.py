"""Rounds of Self-Instruct: what they show, what they accept, and that they can be made again."""

from __future__ import annotations

import re

from zephyr_ray.config.generation import SelfInstruct
from zephyr_ray.generation.self_instruct import Instructions, Request
from zephyr_ray.inference.request_plan import Completion
from zephyr_ray.pipeline.fingerprints import content_id

SEEDS = [f"Explain the word {content_id(number)[:8]} to a child" for number in range(24)]


def reply(request: Request, new: int = 8, alike: int = 0) -> Completion:
    """A list that a request's text decides, with some instructions that are all but a seed."""
    own = [f"Tell {content_id(request.text, number)} about {content_id(number, request.text)}" for number in range(new)]
    listed = [f"{SEEDS[0]} please", *own][1 - alike :]
    return Completion("\n".join(f"{number}. {text}" for number, text in enumerate(listed, 9)), "stop", None)


def rounds(section: SelfInstruct, seed: int = 0, **given: int) -> tuple[Instructions, list[list[Request]]]:
    made, asked = Instructions(section, seed, SEEDS), []
    while not made.are_complete:
        asked.append(made.next_round())
        made.read(asked[-1], [reply(request, **given) for request in asked[-1]])
    return made, asked


def shown(request: Request) -> list[str]:
    return re.findall(r"^\d+\. (.+)$", request.text, re.MULTILINE)


def test_a_round_shows_each_instruction_about_once_and_asks_for_no_more_than_is_missing() -> None:
    made, asked = rounds(SelfInstruct(type="self_instruct", dialogues=100))
    # 24 seeds are shown in 3 requests, which bring 24; 48 in 6, which bring 48; 28 are missing: 4 requests
    assert [len(each) for each in asked] == [3, 6, 4]
    assert len(made.accepted) == len({each.text for each in made.accepted}) == 100
    assert made.left_out == {"unusable_instructions": 0, "replies_without_instructions": 0}
    assert made.accepted[0].origin == "1.1.1"
    assert made.accepted[-1].origin == "3.4.4"
    assert len({request.id for each in asked for request in each}) == 13


def test_six_of_eight_are_seeds_and_the_others_come_from_earlier_rounds() -> None:
    made, asked = rounds(SelfInstruct(type="self_instruct", dialogues=100))
    assert all(len(shown(request)) == 8 and set(shown(request)) <= {*SEEDS} for request in asked[0])
    first = {each.text for each in made.accepted if each.origin.startswith("1.")}
    for request in asked[1]:
        assert len(set(shown(request)) & {*SEEDS}) == 6
        assert len(set(shown(request)) & first) == 2


def test_the_same_replies_make_the_same_rounds() -> None:
    section = SelfInstruct(type="self_instruct", dialogues=60)
    assert rounds(section)[1] == rounds(section)[1]
    assert rounds(section, seed=1)[1][0] != rounds(section)[1][0]
    more = SelfInstruct(type="self_instruct", dialogues=100)
    assert rounds(more)[1][:2] == [*rounds(section)[1][:1], rounds(more)[1][1]]


def test_instructions_that_are_like_another_are_left_out() -> None:
    made, asked = rounds(SelfInstruct(type="self_instruct", dialogues=20), alike=1)
    assert made.left_out["instructions_like_another"] == sum(map(len, asked))
    assert not [each for each in made.accepted if "please" in each.text]


def test_it_ends_where_nothing_new_comes() -> None:
    made = Instructions(SelfInstruct(type="self_instruct", dialogues=100), 0, SEEDS)
    empty = Completion("What a task!", "stop", None)
    while not made.are_complete:
        asked = made.next_round()
        made.read(asked, [None, *[empty] * (len(asked) - 1)])
    assert made.round == 3
    assert made.accepted == []
    assert made.left_out["refused_requests_for_instructions"] == 3
    assert made.left_out["replies_without_instructions"] == 6
    limited, only = rounds(SelfInstruct(type="self_instruct", dialogues=100, rounds=1))
    assert (len(only), len(limited.accepted)) == (1, 24)


def test_a_few_seeds_are_enough() -> None:
    made = Instructions(SelfInstruct(type="self_instruct", dialogues=10), 0, SEEDS[:2])
    (request,) = made.next_round()
    assert sorted(shown(request)) == sorted(SEEDS[:2])
    assert "Write 8 more tasks" in request.text
    assert "numbered 3 to 10" in request.text
