"""One failed request of a judge takes no other with it, and no failure is kept for an answer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.evaluation.runners.run_alpaca_eval import StoppedError, forget_failures, one_by_one, plain


class APIConnectionError(Exception):
    """As the client's."""


def judge(prompts: list[str], **options: Any) -> dict[str, list[Any]]:
    """Answers in the package's layout: fails for "bad", cannot be reached for "down", gives up for "empty"."""
    (prompt,) = prompts
    assert options == {"model": "j", "num_procs": 1}
    if prompt == "bad":
        raise ValueError("too\nlong")
    if prompt == "down":
        raise APIConnectionError("Connection error.")
    tokens = 0 if prompt == "empty" else 3
    text = prompt.upper() if tokens else ""
    return {
        "completions": [text],
        "completions_all": [{"text": text, "total_tokens": tokens}],
        "price_per_example": [0.5],
        "time_per_example": [1.0],
    }


def asked(*prompts: str) -> tuple[dict[str, list[Any]], Counter[str]]:
    failures: Counter[str] = Counter()
    return one_by_one(judge, 2, failures)(prompts, model="j"), failures


def test_a_failed_request_is_null_and_the_others_stay() -> None:
    found, failures = asked("a", "bad", "empty", "b")
    assert found["completions"] == ["A", None, None, "B"]
    assert [each and each["text"] for each in found["completions_all"]] == ["A", None, None, "B"]
    assert found["price_per_example"] == [0.5, 0.0, 0.0, 0.5]
    assert failures == {"ValueError: too long": 1, "no completion after all retries": 1}


def test_prompts_that_all_fail_do_not_stop_the_others() -> None:
    found, failures = asked("bad", "bad")
    assert found["completions"] == found["completions_all"] == [None, None]
    assert failures == {"ValueError: too long": 2}


def test_an_endpoint_that_is_down_is_not_asked_on() -> None:
    with pytest.raises(StoppedError, match=r"APIConnectionError: Connection error\."):
        asked("down", "down")
    found, failures = asked("down", "a")
    assert (found["completions"], failures.total()) == ([None, "A"], 1)


def test_failures_are_no_part_of_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    forget_failures(cache)
    rows = [{"instruction": name, "preference": value} for name, value in (("x", 1.5), ("y", -1), ("z", None))]
    cache.write_text(json.dumps(rows))
    forget_failures(cache)
    assert json.loads(cache.read_text()) == rows[:1]


def test_what_is_no_number_is_null() -> None:
    assert plain({"preference": float("nan"), "instruction": "x"}) == {"preference": None, "instruction": "x"}
