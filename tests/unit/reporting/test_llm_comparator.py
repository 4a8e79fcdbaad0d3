"""The file for LLM Comparator: its keys, and scores on its scale from -1.5 (B) to 1.5 (A)."""

from __future__ import annotations

from typing import Any

import pytest

from zephyr_ray.reporting import llm_comparator
from zephyr_ray.reporting.samples import Answer, Answers

KEYS = {
    "input_text",
    "tags",
    "output_text_a",
    "output_text_b",
    "score",
    "individual_rater_scores",
    "rationale_list",
    "custom_fields",
}


def completion(model: str, score: float | None, *opinions: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "content": f"{model} says",
        "overall_score": score,
        "annotations": None,
        "opinions": opinions,
    }


def opinion(rating: float | None, is_reversed: bool = False, aspect: str = "overall") -> dict[str, Any]:
    about = {"judge": "gpt", "repeat": 0, "position": 0, "rationale": "why"}
    return about | {"is_reversed": is_reversed, "aspect": aspect, "rating": rating}


def judged(*completions: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], "completions": [*completions]}


def test_ratings_of_two_models() -> None:
    """9 against 5 is much better (1.5), in the other order 6 against 7 slightly worse (-0.5): 0.5 on average."""
    a = completion("a", 7.5, opinion(9), opinion(6, is_reversed=True), opinion(1, aspect="honesty"))
    b = completion("b", 6.0, opinion(5), opinion(7, is_reversed=True))
    made = llm_comparator.of_judgments([judged(b, a), judged(completion("a", 3.0)), judged(completion("b", None), a)])
    assert made is not None
    assert made["models"] == [{"name": "a"}, {"name": "b"}]
    (example,) = made["examples"]
    assert set(example) == KEYS
    assert example["score"] == 0.5
    assert [
        (each["score"], each["rating_label"], each["is_flipped"]) for each in example["individual_rater_scores"]
    ] == [
        (1.5, "A is much better", False),
        (-0.5, "B is slightly better", True),
    ]
    assert example["custom_fields"] == {"rating": [7.5, 6.0]}
    assert made["metadata"]["custom_fields_schema"] == [{"name": "rating", "type": "per_model_number"}]


def test_one_model_alone_is_no_comparison() -> None:
    assert llm_comparator.of_judgments([judged(completion("a", 1.0), completion("a", 2.0))]) is None
    assert llm_comparator.of_answers(Answers("held_out", ["sft"], [("p", [[Answer("x", True)]])])) is None
    assert llm_comparator.of_pairs([pair("a", "a", 2.0, 1.0), pair(None, "a", 2.0, 1.0)]) is None


def test_answers_that_a_program_checked() -> None:
    rows = [("p", [[Answer("s", True)], [Answer("d", False)]]), ("q", [[Answer("s", False)], [Answer("d", False)]])]
    made = llm_comparator.of_answers(Answers("held_out", ["sft", "dpo"], rows))
    assert made is not None
    assert [each["name"] for each in made["models"]] == ["dpo", "sft"]
    assert [each["score"] for each in made["examples"]] == [-1.0, 0.0]
    assert made["examples"][0]["output_text_a"] == "d"


def pair(chosen: str | None, rejected: str | None, high: float, low: float) -> dict[str, Any]:
    return {
        "prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}],
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
        "chosen_model": chosen,
        "rejected_model": rejected,
        "score_chosen": high,
        "score_rejected": low,
    }


def test_pairs_of_the_two_models_that_meet_most() -> None:
    made = llm_comparator.of_pairs([pair("b", "a", 5.0, 2.0), pair("a", "b", 4.0, 1.0), pair("c", "a", 4.0, 1.0)])
    assert made is not None
    assert [each["name"] for each in made["models"]] == ["a", "b"]
    assert [(each["score"], each["output_text_a"]) for each in made["examples"]] == [(-1.0, "no"), (1.0, "yes")]
    assert made["examples"][0]["custom_fields"] == {"score": [2.0, 5.0]}
    assert made["examples"][0]["input_text"] == "system: be kind\n\nuser: hello"


@pytest.mark.parametrize(("a", "b", "score"), [(5, 1, 1.5), (3, 1, 1.0), (2, 1, 0.5), (1, 1, 0.0), (1, 5, -1.5)])
def test_how_far_apart_is_how_much_better(a: float, b: float, score: float) -> None:
    made = llm_comparator.of_judgments([judged(completion("a", a), completion("b", b))])
    assert made is not None
    assert made["examples"][0]["score"] == score
