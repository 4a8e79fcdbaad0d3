"""Why two completions became a pair, held against the rule that makes them."""

from __future__ import annotations

import pytest

from zephyr_ray.data.binarize import Rule, binarize
from zephyr_ray.data.row_lineage.why import why_these


def completions(*scores: float | None) -> list[dict[str, object]]:
    return [{"content": f"answer {n}", "model": "m", "overall_score": score} for n, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("rule", "scores", "why"),
    [
        (
            Rule(),
            (9, 2),
            "the chosen one has the best overall_score (9) of 2 completions; the rejected one is the only",
        ),
        (
            Rule(),
            (9, 2, 3, None),
            "of 3 completions; the rejected one was drawn by the seed among the 2 that score lower",
        ),
        (Rule(), (9, 9, 3), "drawn by the seed among 2 with that score; the rejected one is the only one"),
        (Rule(rejected="lowest"), (9, 2, 3), "the rejected one scores lowest of the 2 that score lower"),
        (Rule(margin=2), (9, 8, 3), "is the only one that scores lower by more than 2"),
        (Rule(rejected="every_pair"), (9, 8, 3), "every two completions whose overall_score differs make a pair"),
    ],
)
def test_it_says_what_the_rule_did(rule: Rule, scores: tuple[float | None, ...], why: str) -> None:
    given = completions(*scores)
    for chosen, rejected in binarize(given, rule):
        assert why in why_these(given, chosen.text, rejected.text, rule)


def test_completions_that_do_not_give_this_pair_any_more() -> None:
    assert "other completions have the best score now" in why_these(completions(1, 9), "answer 0", "answer 1", Rule())
    assert "make no pair: unscored" in why_these(completions(None, None), "answer 0", "answer 1", Rule())
