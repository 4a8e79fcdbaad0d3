"""From outcomes to a row: what is kept, in which order, and how a failure reads."""

from types import SimpleNamespace
from typing import Any

import pytest

from zephyr_ray.inference.answers import Answer, Failure, Request, candidates_row, plan
from zephyr_ray.inference.endpoints import in_flight_share, prompts_ahead, read_reply
from zephyr_ray.inference.offline import read_end
from zephyr_ray.inference.seeds import draw_members, request_seed
from zephyr_ray.recipe import Endpoint, Sampling

PROMPT = {"prompt_id": "p", "messages": [{"role": "user", "content": "hello"}], "source": "file:1"}


def pool(*names: str, **fields: Any) -> Sampling:
    endpoints = [{"name": name, "base_url": "http://host/v1", "model": "m", "max_in_flight": 8} for name in names]
    return Sampling.model_validate({"endpoints": endpoints, **fields})


def test_every_member_gives_its_samples() -> None:
    requests = plan(pool("a", "b", samples=2), 7, "p")
    assert [(each.member, each.sample) for each in requests] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert requests[3].seed == request_seed(7, "p", "b", 1)


def test_drawn_members_keep_the_seeds_that_they_would_have_without_a_draw() -> None:
    requests = plan(pool("a", "b", "c", draw=2), 7, "p")
    assert [each.member for each in requests] == draw_members(7, "p", ["a", "b", "c"], 2)
    assert set(requests) < set(plan(pool("a", "b", "c"), 7, "p"))


def test_a_row_keeps_what_succeeded_and_names_what_failed() -> None:
    requests = [Request("a", 0, 10), Request("a", 1, 11), Request("b", 0, 12), Request("b", 1, 13)]
    outcomes = [Answer("hi", "stop", 2), Failure("busy\n  now"), Failure("gone"), Failure("gone")]
    assert candidates_row(PROMPT, requests, outcomes) == {
        "prompt_id": "p",
        "messages": PROMPT["messages"],
        "completions": [
            {"model": "a", "content": "hi", "finish_reason": "stop", "tokens": 2, "seed": 10, "principle": None}
        ],
        "error": "a (sample 1): busy now; b (samples 0, 1): gone",
    }


def test_a_row_without_failures_has_no_error() -> None:
    row = candidates_row(PROMPT, [Request("a", 0, 10)], [Answer("", "length", None)])
    assert row["error"] is None
    assert row["completions"] == [
        {"model": "a", "content": "", "finish_reason": "length", "tokens": None, "seed": 10, "principle": None}
    ]


def test_a_reason_is_cut() -> None:
    assert len(candidates_row(PROMPT, [Request("a", 0, 1)], [Failure("x" * 9_000)])["error"]) < 400


def reply(content: Any, finish_reason: str = "stop", **fields: Any) -> Any:
    message = SimpleNamespace(content=content)
    return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason=finish_reason)], **fields)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (reply("hi", usage=SimpleNamespace(completion_tokens=3)), Answer("hi", "stop", 3)),
        (reply("cut off", "length", usage=None), Answer("cut off", "length", None)),
        (reply("", "stop"), Answer("", "stop", None)),
        (reply(None, "content_filter"), Failure("the reply has no content (finish_reason content_filter)")),
        (SimpleNamespace(choices=[]), Failure("the reply has no choices")),
        (SimpleNamespace(choices=None), Failure("the reply has no choices")),
        ("<html>", Failure("the reply has no choices")),
    ],
)
def test_what_a_reply_says(given: Any, outcome: Answer | Failure) -> None:
    assert read_reply(given) == outcome


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


def test_workers_share_a_members_bound() -> None:
    member = Endpoint(name="a", base_url="http://host/v1", model="m", max_in_flight=10)
    assert [in_flight_share(member, workers) for workers in (1, 3, 10)] == [10, 3, 1]


def test_prompts_that_keep_the_pool_busy() -> None:
    assert prompts_ahead(pool("a", "b")) == 8  # each prompt gives every member one request
    assert prompts_ahead(pool("a", "b", samples=4)) == 2
    assert prompts_ahead(pool("a", "b", draw=1)) == 16  # every other prompt
    assert prompts_ahead(pool("a", workers=2)) == 4
