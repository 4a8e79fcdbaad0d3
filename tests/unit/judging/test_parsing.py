"""What is read out of a judge's reply, and what is refused. The examples are written after what real judges wrote."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.judging.examples import question
from zephyr_ray.judging.parsing.reply import Rating, Unreadable, complaint_message, parse_reply
from zephyr_ray.schemas import storable

ONE = question("overall", (0,))
TWO = question("honesty", (1, 0))
HONESTY = question("honesty", (0,))


def ratings(text: str, asked: Any) -> list[float | None]:
    return [each.rating for each in parse_reply(text, asked)]


def complaint(text: str, asked: Any) -> str:
    with pytest.raises(Unreadable) as unreadable:
        parse_reply(text, asked)
    return unreadable.value.complaint


def test_the_form_that_was_asked_for() -> None:
    text = (
        '{"answer_1": {"rationale": "a b", "rating": 5}, "answer_2": {"rationale": "{\\"rating\\": 1}", "rating": 2}}'
    )
    assert parse_reply(text, TWO) == [Rating(5, "a b"), Rating(2, '{"rating": 1}')]
    assert parse_reply('{"answer_1": {"critique": "fine", "rating": 10}}', ONE) == [Rating(10, "fine")]


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"answer_1": {"rationale": "a", "rating": 4}, "answer_2": {"rationale": "b", "rating": 2}}\n```',
        'Sure! Here it is:\n{"answer_2": {"rating": 2, "rationale": "b"}, "answer_1": {"rating": 4}}\nDone [1].',
        '{"answers": [{"answer": 2, "rating": 2}, {"answer": 1, "rating": 4}]}',
        '[{"rationale": "a", "rating": 4}, {"rationale": "b", "rating": 2.0}]',
        '{"answer_1": {"rating": 4}}\n{"answer_2": {"rating": 2}}',
        '{"answer_1": {"rationale": "two\nlines", "rating": "4/5"}, "answer_2": {"Rating": "**2**"}}',
        '{"answer_1": 4, "answer_2": 2}',
        '{"1": {"score": 4}, "2": {"score": 2}}',
        "#### Output for Text 1\nRating: 4\nRationale: a\n\n#### Output for Text 2\nRating: 2\nRationale: b",
        "### Answer 1\n**Rating:** 4/5\n\n### Answer 2\n**Rating**: [[2]]",
        "Answer 1: 4\nAnswer 2: 2",
        "**Answer 2**: 2/5\n**Answer 1**: 4/5",
        "Rating for answer 1: 4\nRating for answer 2: 2",
        "On a scale of 1 to 5:\n\n- Answer 1 - Score: 4 (good)\n- Answer 2 - Score: 2 (1 to 5)",
        "Answer 1 is better than answer 2.\n\nAnswer 1:\nRating: 4 out of 5\nAnswer 2:\nRating:\n2",
        "<think>Answer 1: 1? Answer 2: 5?</think>\nAnswer 1: 4\nAnswer 2: 2",
        "```\nAnswer 1: 4\nAnswer 2: 2\n```",
        'I compared them.\n{"answer_1": {"rating": 4}, "answer_2": {"rating": 2}}\nRating: 4',
    ],
)
def test_shapes_that_judges_make_of_it(text: str) -> None:
    assert ratings(text, TWO) == [4, 2]


@pytest.mark.parametrize(
    "text",
    [
        "Rating: [[10]]",
        "Good.\n\nRating: 10",
        "**Overall Score:** **10**",
        "Score (1-10): 10",
        "Rating from 1 to 10: 10",
        "My rating on a scale of 1 to 10: 10/10",
        "Rating: 1 to 10\nThe final rating: 10",
        "[Rating]\n\n[10/10]",
        "10",
        "10/10",
        "**1**0",
        "1\u200b0",
        '{"rating": 10}',
        '{"overall_score": "10 / 10", "critique": "x"}',
        "Rating: 10.",
        "Rating: 10 - excellent, and 3 sources were named",
        "Fix it so:\n```python\nscore: int = 1\nrating: 1\n```\nRating: 10",
    ],
)
def test_a_ten_is_ten(text: str) -> None:
    assert ratings(text, ONE) == [10]


@pytest.mark.parametrize(
    "text",
    [
        "Rating: [[1",
        "Rating: [1",
        "Rating: 1 0",
        "Rating: 1-10",
        "Rating: [1-10]",
        "[[1 to 10]]",
        '{"answer_1": {"critique": "x", "rating": 1',
        '{"answer_1": {"critique": "x", "rating": "1',
        "Rating: 1,0",
        "Rating: 1٠",
        "Rating:\n\n1. The answer is right.\n2. It is short.",
        "Rating:\n\n1.",
        "score = 1",
        "```\nscore: 1\n```\nThat is the program.",
    ],
)
def test_what_may_be_no_one_is_never_read_as_one(text: str) -> None:
    complaint(text, ONE)


@pytest.mark.parametrize(
    ("text", "asked", "says"),
    [
        ("", ONE, "empty"),
        (" \n ", ONE, "empty"),
        ("<think>Rating: 3", ONE, "empty"),
        ("$ERROR$", ONE, "answer 1 has no rating"),
        ("I give it a ten, for it is helpful.", ONE, "answer 1 has no rating"),
        ("> Rating: 10\nIt says so itself.", ONE, "answer 1 has no rating"),
        ('It ends in "Rating: 10", which is no answer.', ONE, "answer 1 has no rating"),
        ("Rating: 11", ONE, "the rating 11 is not from 1 to 10"),
        ("Rating: 0", ONE, "the rating 0 is not from 1 to 10"),
        ("Rating: -1", ONE, "the rating -1 is not from 1 to 10"),
        ("Rating: 6", HONESTY, "the rating 6 is not from 1 to 5"),
        ("Rating: [[8.5]]", ONE, "the rating 8.5 is not a whole number"),
        ('{"rating": 4.5}', HONESTY, "the rating 4.5 is not a whole number"),
        ('{"rating": 1e400}', ONE, "is not from 1 to 10"),
        ('{"rating": NaN}', ONE, "is not from 1 to 10"),
        ('{"rating": ' + "9" * 4000 + "}", ONE, "is not from 1 to 10"),
        ('{"rating": true}', ONE, "is not a rating"),
        ('{"rating": "good"}', ONE, "is not a rating"),
        ('{"rating": [4]}', ONE, "is not a rating"),
        ("Rating: 4/10", HONESTY, "is not on the scale from 1 to 5"),
        ("Rating: 80%", ONE, "not one clear rating"),
        ("Rating: 3-4", ONE, "not one clear rating"),
        ("Rating: 3 or 4", ONE, "not one clear rating"),
        ("Rating: 4½", ONE, "not one clear rating"),
        ("Rating: 4\nRating: 5", ONE, "two different ratings, 4 and 5"),
        ("Rating: 4\nRating: N/A", ONE, "two different ratings, 4 and none"),
        ('{"rating": 4, "score": 5}', ONE, "two different ratings, 4 and 5"),
        ('{"rating": 4, "rating": 5}', ONE, "there twice"),
        ('{"answer_1": {"rating": 4}, "answer_1": {"rating": 5}}', ONE, "there twice"),
        ('{"rating": 4} or rather {"rating": 5}', ONE, "two different ratings, 4 and 5"),
        ('It says {"rating": 10}.\nRating: 2', ONE, "another rating than the JSON"),
        ('{"answer_1": {"rating": 4}}', TWO, "answer 2 has no rating"),
        ('{"rating": 4}', TWO, "does not say which answer"),
        ('{"answer_1": {"rating": 4}, "answer_3": {"rating": 4}}', TWO, "no answer 3"),
        ('[{"rating": 4}, {"rating": 4}, {"rating": 4}]', TWO, "no answer 3"),
        ('{"answer_0": {"rating": 4}, "answer_1": {"rating": 4}}', TWO, "no answer 0"),
        ('{"answer_1": {"answer": 2, "rating": 4}}', TWO, "of answer 1 and of answer 2"),
        ('{"answer_2": {"rating": 4}, "answer_1": {"rating": 5}', TWO, "does not say which answer"),
        ("Rating: 4\nRating: 2", TWO, "answer 1 has no rating"),
        ("Answer 1: 4", TWO, "answer 2 has no rating"),
        ("Answer 1: 4\nAnswer 2: 3\nAnswer 12: 3", TWO, "no answer 12"),
        ("Answer 1: 4\nAnswer 2: 3\nAnswer 1: 5", TWO, "answer 1 has two different ratings"),
        ("{'answer_1': {'rating': 4}}", ONE, "is not the JSON"),
    ],
)
def test_what_is_wrong_is_said(text: str, asked: Any, says: str) -> None:
    said = complaint(text, asked)
    assert says in said
    assert len(said) < 150
    assert said in complaint_message(said)


@pytest.mark.parametrize(
    "text", ["Rating: N/A", "Rating: n/a (no facts)", "Score: not applicable", '{"rating": "N/A"}', '{"rating": null}']
)
def test_not_applicable_is_no_rating_and_no_complaint(text: str) -> None:
    assert ratings(text, HONESTY) == [None]


def test_a_word_that_begins_like_not_applicable_is_not() -> None:
    assert "no rating" in complaint("Rating: none of the claims is false, so the best", HONESTY)
    assert "no rating" in complaint("Rating: nasty", HONESTY)


def test_reasons_are_kept_without_the_ratings() -> None:
    text = "#### Text 1\nRating: 4\nRationale: Sure of it.\nTwice.\n\n#### Text 2\nIt errs.\nRating: 2"
    assert [each.rationale for each in parse_reply(text, TWO)] == ["Sure of it.\nTwice.", "It errs."]
    assert parse_reply("It is fine.\n\nRating: [[7]]", ONE) == [Rating(7, "It is fine.")]


def test_lone_surrogates_become_something_that_utf_8_can_hold() -> None:
    (rating,) = parse_reply('{"critique": "a\\ud800b", "rating": 3}', ONE)
    assert rating == Rating(3, "a?b")
    assert storable("x\udfff") == "x?"


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"a":' * 2_000, '{"a": [' * 300 + "]}" * 300, "{" * 5_000, "9" * 9_000]
)
def test_replies_made_to_break_a_parser(text: str) -> None:
    complaint(text, TWO)


@pytest.mark.parametrize(
    "piece", ["Answer", "Answer 1", "Rating", "Rating: ", "- ", ". ", "(", "[[ ", "```a\n", "4 / ", "'"]
)
def test_no_text_takes_long(piece: str) -> None:
    """Judges get stuck in loops: a pattern that tries every split of a run of spaces would take minutes."""
    start = time.process_time()
    for text in (piece * (20_000 // len(piece)), piece + " " * 20_000 + "x"):
        read_or_refuse(text, ONE)
        read_or_refuse(text, TWO)
    assert time.process_time() - start < 5


@given(st.text(), st.sampled_from([ONE, TWO, HONESTY]))
def test_any_text_is_read_or_refused(text: str, asked: Any) -> None:
    read_or_refuse(text, asked)


PIECES = (
    'Rating: Score: Answer Text 1 2 10 4 4.5 /5 / [[ ]] ** #### { } [ ] " : , \n - N/A null to ``` '
    '"rating": "answer_1":'
)
words = st.sampled_from(PIECES.split(" "))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rating", "answer_1", "2", "answers", "answer", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(words, max_size=30).map(" ".join) | values.map(json.dumps), st.sampled_from([ONE, TWO, HONESTY]))
def test_anything_that_looks_like_a_reply_is_read_or_refused(text: str, asked: Any) -> None:
    read_or_refuse(text, asked)


def read_or_refuse(text: str, asked: Any) -> None:
    try:
        ratings = parse_reply(text, asked)
    except Unreadable:
        return
    assert len(ratings) == len(asked.order)
    top = 10 if asked.aspect == "overall" else 5
    assert all(each.rating is None or each.rating in range(1, top + 1) for each in ratings)


talk = st.text(alphabet="abc XYZ.,!?'\n", max_size=60)
reasons = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
verdicts = st.lists(st.tuples(st.integers(1, 10), reasons), min_size=1, max_size=5)


@given(verdicts, talk, talk, st.booleans())
def test_a_valid_reply_survives_what_stands_around_it(
    given_: list[tuple[int, str]], before: str, after: str, fenced: bool
) -> None:
    reply = json.dumps({f"answer_{i}": {"critique": why, "rating": n} for i, (n, why) in enumerate(given_, 1)})
    text = f"{before}\n```json\n{reply}\n```\n{after}" if fenced else before + reply + after
    ratings = parse_reply(text, question("overall", tuple(range(len(given_)))))
    assert ratings == [Rating(n, why.strip() or None) for n, why in given_]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), talk)
def test_headed_blocks_survive_too(given_: list[int], reason: str) -> None:
    text = "\n\n".join(f"#### Output for Text {i}\nRating: {n}\nRationale: {reason}" for i, n in enumerate(given_, 1))
    assert ratings(text, question("honesty", tuple(range(len(given_))))) == given_
