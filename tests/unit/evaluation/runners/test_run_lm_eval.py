"""A reply without what a task needs is refused, where lm-eval itself would go on."""

from __future__ import annotations

from typing import Any

import pytest

from zephyr_ray.evaluation.runners.run_lm_eval import UnansweredError, check_logprobs, check_texts

PROMPTS = [[5, 6, 7], [8, 9]]


def reply(*found: list[float | None]) -> dict[str, Any]:
    return {"choices": [{"index": place, "logprobs": {"token_logprobs": each}} for place, each in enumerate(found)]}


def test_a_log_probability_of_each_token_and_the_one_after_is_enough() -> None:
    check_logprobs(reply([None, -1.0, -2.0, -0.1], [None, -1.0, -0.1]), PROMPTS)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (([-0.1], [-0.1]), "of 1 tokens, not of 4: the endpoint has to know `echo`"),
        (([], [None, -1.0, -0.1]), "of 0 tokens, not of 4"),
        (([None, -1.0, None, -0.1], [None, -1.0, -0.1]), "no finite number"),
        (([None, -1.0, float("nan"), -0.1], [None, -1.0, -0.1]), "no finite number"),
        (([None, -1.0, -2.0, -0.1],), "1 answers to 2 prompts"),
    ],
)
def test_fewer_are_refused(found: tuple[list[float | None], ...], says: str) -> None:
    with pytest.raises(UnansweredError, match=says):
        check_logprobs(reply(*found), PROMPTS)


def test_an_empty_text_is_an_answer_and_none_is_not() -> None:
    check_texts({"choices": [{"text": ""}]}, lambda choice: choice.get("text"))
    replies: list[dict[str, Any]] = [{"choices": [{"text": None}]}, {"choices": []}, {"error": "busy"}]
    for out in replies:
        with pytest.raises(UnansweredError, match="a reply without a text"):
            check_texts(out, lambda choice: choice.get("text"))
