"""From outcomes to a row: what is kept, in which order, and how a failure reads."""

from typing import Any

import pytest

from zephyr_ray.config.feedback import Sampling
from zephyr_ray.inference.offline import read_end
from zephyr_ray.inference.request_plan import (
    Completion,
    CompletionRequest,
    Failure,
    candidates_row,
    messages_of,
    plan,
    worst,
)
from zephyr_ray.inference.seeds import draw_members, request_seed

PROMPT = {"prompt_id": "p", "messages": [{"role": "user", "content": "hello"}], "source": "file:1"}


def pool(*names: str, **fields: Any) -> Sampling:
    endpoint = {"type": "endpoint", "base_url": "http://host/v1", "model": "m", "max_in_flight": 8}
    return Sampling.model_validate({"pool": [endpoint | {"name": name} for name in names], **fields})


def test_every_member_gives_its_samples() -> None:
    requests = plan(pool("a", "b", samples=2), 7, "p")
    assert [(each.member, each.sample) for each in requests] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert requests[3].seed == request_seed(7, "p", "b", 1)


def test_drawn_members_keep_the_seeds_that_they_would_have_without_a_draw() -> None:
    requests = plan(pool("a", "b", "c", draw=2), 7, "p")
    assert [each.member for each in requests] == draw_members(7, "p", ["a", "b", "c"], 2)
    assert set(requests) < set(plan(pool("a", "b", "c"), 7, "p"))


def test_a_row_keeps_what_succeeded_and_names_what_failed() -> None:
    requests = [
        CompletionRequest("a", 0, 10),
        CompletionRequest("a", 1, 11),
        CompletionRequest("b", 0, 12),
        CompletionRequest("b", 1, 13),
    ]
    outcomes: list[Completion | Failure] = [
        Completion("hi", "stop", 2),
        Failure("busy\n  now"),
        Failure("gone"),
        Failure("gone"),
    ]
    assert candidates_row(PROMPT, requests, outcomes) == {
        "prompt_id": "p",
        "messages": PROMPT["messages"],
        "completions": [
            {"model": "a", "content": "hi", "finish_reason": "stop", "tokens": 2, "seed": 10, "principle": None}
        ],
        "error": "a (sample 1): busy now; b (samples 0, 1): gone",
    }


def test_a_row_without_failures_has_no_error() -> None:
    row = candidates_row(PROMPT, [CompletionRequest("a", 0, 10)], [Completion("", "length", None)])
    assert row["error"] is None
    assert row["completions"] == [
        {"model": "a", "content": "", "finish_reason": "length", "tokens": None, "seed": 10, "principle": None}
    ]


def test_a_reason_is_cut() -> None:
    assert len(candidates_row(PROMPT, [CompletionRequest("a", 0, 1)], [Failure("x" * 9_000)])["error"]) < 400


@pytest.mark.parametrize(
    ("text", "tokens", "stop", "read"),
    [
        ("done", [5, 2], (), ("done", "stop")),
        ("cut", [5, 6], (), ("cut", "length")),
        ("one END", [5, 6], ("END",), ("one ", "stop")),
        ("one EN", [5, 6], ("END",), ("one EN", "length")),
        ("", [], (), ("", "length")),
    ],
)
def test_why_an_offline_answer_ended(text: str, tokens: list[int], stop: tuple[str, ...], read: tuple) -> None:
    assert read_end(text, tokens, frozenset({2}), stop) == read


def test_the_worst_failure_decides() -> None:
    done, refused = Completion("hi", "stop", 1), Failure("no", "refused")
    assert worst([done]) is None
    assert worst([done, refused]) == "refused"
    assert worst([refused, Failure("busy", "failed")]) == "failed"
    assert worst([Failure("busy", "failed"), Failure("gone", "given_up")]) == "given_up"
    assert worst([Failure("gone", "given_up"), Failure("spent", "over_budget")]) == "over_budget"


def test_a_principle_stands_before_the_prompts_own_system_message() -> None:
    user, system = {"role": "user", "content": "hi"}, {"role": "system", "content": "Be brief."}
    told = CompletionRequest("a", 0, 1, "Be right.")
    assert messages_of(CompletionRequest("a", 0, 1), [system, user]) == [system, user]
    assert messages_of(told, [user]) == [{"role": "system", "content": "Be right."}, user]
    assert messages_of(told, [system, user]) == [{"role": "system", "content": "Be right.\n\nBe brief."}, user]


def test_each_answer_draws_its_own_principle() -> None:
    requests = [
        request for prompt in range(50) for request in plan(pool("a", samples=2, principles=True), 7, str(prompt))
    ]
    assert len({request.principle for request in requests}) > 8
    assert requests == [
        request for prompt in range(50) for request in plan(pool("a", samples=2, principles=True), 7, str(prompt))
    ]
