"""The best of several answers as dialogues, and what more answers would buy, by hand and by all draws."""

import itertools
import statistics

import pyarrow as pa
import pytest

from tests.unit.data.test_preferences import judgment
from zephyr_ray.config.data import BestAnswers
from zephyr_ray.data.best_answers import Gain, gain_lines, mean_best, pass_at, to_dialogues
from zephyr_ray.data.binarize import Rule
from zephyr_ray.schemas import JUDGMENTS

SCORES = [3.0, 9.0, 9.0, 1.0, 6.0]


@pytest.mark.parametrize("n", range(1, 6))
def test_the_best_of_n_is_the_mean_over_all_draws(n: int) -> None:
    draws = list(itertools.combinations(SCORES, n))
    assert mean_best(SCORES, n) == pytest.approx(statistics.mean(map(max, draws)))
    assert pass_at(5, 2, n) == pytest.approx(statistics.mean(max(draw) >= 9 for draw in draws))


def test_gain_counts_prompts_that_have_so_many_answers() -> None:
    gain = Gain()
    gain.count([1.0, 3.0], 3.0)
    gain.count([5.0], 3.0)
    assert gain.result(has_pass=True) == [
        {"n": 1, "prompts": 2, "best": 3.5, "pass": 0.75},  # (2 + 5) / 2, (1/2 + 1) / 2
        {"n": 2, "prompts": 1, "best": 3.0, "pass": 1.0},
    ]
    assert gain.result(has_pass=False)[0] == {"n": 1, "prompts": 2, "best": 3.5}
    assert gain_lines(gain.result(has_pass=True)) == [
        "  mean score of the best of n: 1: 3.5, 2: 3",
        "  pass@n: 1: 75.0%, 2: 100.0%",
    ]
    assert gain_lines([]) == []


def scored(prompt_id: str, *scores: float | None) -> dict:
    row = judgment(1)
    first = row["completions"][0]
    answers = [first | {"content": f"answer {n}", "overall_score": score} for n, score in enumerate(scores)]
    return row | {"prompt_id": prompt_id, "completions": answers}


def test_the_best_answer_is_learnt_and_others_are_not() -> None:
    rows = [scored("a", 3.0, 8.0, None), scored("b", 2.0, 4.0), scored("c", None, None)]
    table, gain = to_dialogues(
        pa.Table.from_pylist(rows, schema=JUDGMENTS), rule=Rule(seed=0), section=BestAnswers(min_score=5)
    )
    assert table["reason"].to_pylist() == [None, "low_score", "unscored"]
    (kept,) = table.filter(pa.compute.is_null(table["reason"])).to_pylist()
    assert kept["messages"][-1] == {"role": "assistant", "content": "answer 1"}
    assert kept["messages"][:-1] == rows[0]["messages"]
    assert [each["prompts"] for each in gain.result(has_pass=False)] == [2, 2]


def test_of_several_best_ones_one_is_drawn_by_the_seed() -> None:
    rows = pa.Table.from_pylist([scored(str(n), 8.0, 8.0, 1.0) for n in range(40)], schema=JUDGMENTS)
    drawn = [
        [
            row["messages"][-1]["content"]
            for row in to_dialogues(rows, rule=Rule(seed), section=BestAnswers())[0].to_pylist()
        ]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {*drawn[0]} == {"answer 0", "answer 1"}
