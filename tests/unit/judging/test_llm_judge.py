"""The conversation with a judge: what is sent, asked again and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.judging.examples import judging, question, row
from zephyr_ray.judging.aggregation import Outcome, judged_row
from zephyr_ray.judging.llm_judge import CutReply, NoReply, ask
from zephyr_ray.judging.parsing.rating import Rating
from zephyr_ray.judging.parsing.reply import complaint_message
from zephyr_ray.judging.prompt import messages_of, response_format_of
from zephyr_ray.schemas import JUDGMENTS

ASKED = question("honesty", (1, 0), judge="j", repeat=1)
GOOD = '{"answer_1": {"rationale": "a", "rating": 4}, "answer_2": {"rationale": "b", "rating": 2}}'
ROW = row("x", "y")


class Judge:
    """Answers with what it is given, in turn, and remembers what it was asked."""

    def __init__(self, *script: str | Exception):
        self.script = list(script)
        self.asked: list[tuple[list[Any], int, Any]] = []

    async def __call__(
        self, messages: Sequence[Mapping[str, str]], attempt: int, response_format: Mapping[str, Any] | None, /
    ) -> str:
        self.asked.append((list(messages), attempt, response_format))
        reply = self.script.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def outcome(judge: Judge, **fields: Any) -> Outcome:
    return asyncio.run(ask(ASKED, ROW, judging(**fields), judge))


def test_a_readable_reply_is_one_request() -> None:
    judge = Judge(GOOD)
    made = outcome(judge)
    assert made.ratings == (Rating(4, "a"), Rating(2, "b"))
    assert judge.asked == [(messages_of(ASKED, ROW), 0, response_format_of(ASKED))]
    assert made.replies == (
        {
            "judge": "j",
            "repeat": 1,
            "is_reversed": False,
            "aspect": "honesty",
            "order": [1, 0],
            "attempt": 0,
            "raw": GOOD,
            "complaint": None,
        },
    )


def test_no_schema_where_the_endpoint_knows_none() -> None:
    judge = Judge(GOOD)
    outcome(judge, structured=False)
    assert judge.asked[0][2] is None


def test_an_unreadable_reply_is_sent_back_with_what_is_wrong() -> None:
    judge = Judge("Rating: 4", "", GOOD)
    made = outcome(judge)
    first = messages_of(ASKED, ROW)
    assert [attempt for _, attempt, _ in judge.asked] == [0, 1, 2]
    assert judge.asked[1][0] == [
        *first,
        {"role": "assistant", "content": "Rating: 4"},
        {"role": "user", "content": complaint_message("answer 1 has no rating")},
    ]
    assert judge.asked[2][0] == [
        *first,
        {"role": "assistant", "content": "(empty)"},
        {"role": "user", "content": complaint_message("the reply is empty")},
    ]
    assert [each["complaint"] for each in made.replies] == ["answer 1 has no rating", "the reply is empty", None]
    assert made.ratings[0].rating == 4


@pytest.mark.parametrize("retries", [0, 2])
def test_after_the_last_attempt_the_ratings_are_null_and_every_reply_is_kept(retries: int) -> None:
    made = outcome(Judge(*["no"] * 9), parse_retries=retries)
    assert made.ratings == (Rating(None, None), Rating(None, None))
    assert [each["attempt"] for each in made.replies] == [*range(1 + retries)]
    assert {each["raw"] for each in made.replies} == {"no"}
    assert made.failure is None


def test_a_cut_reply_is_never_read() -> None:
    made = outcome(Judge(CutReply(GOOD), GOOD))
    assert made.replies[0]["raw"] == GOOD
    assert "cut off" in made.replies[0]["complaint"]
    assert made.replies[1]["complaint"] is None


def test_no_reply_ends_it_and_keeps_what_came_before() -> None:
    made = outcome(Judge("no", NoReply("busy")))
    assert (made.failure, [each["raw"] for each in made.replies]) == ("busy", ["no"])
    assert made.ratings == (Rating(None, None), Rating(None, None))


def test_what_the_caller_raises_for_itself_goes_through() -> None:
    with pytest.raises(RuntimeError, match="budget"):
        outcome(Judge(RuntimeError("budget")))


def test_what_utf_8_cannot_hold_is_kept_in_a_form_that_it_can() -> None:
    made = outcome(Judge("\ud800", NoReply("gone \udfff")))
    table = pa.Table.from_pylist([judged_row(ROW, [made])], schema=JUDGMENTS)
    assert table["replies"].to_pylist()[0][0]["raw"] == "?"
