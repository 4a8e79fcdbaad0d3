"""What lm-eval found: intervals, means over all questions, and an error that is no result."""

from __future__ import annotations

import math
from typing import Any

import pytest

from zephyr_ray.evaluation import lm_eval_results
from zephyr_ray.evaluation.intervals import mean_interval


def event(name: str, correct: list[float], log_likelihood: float = -1.0) -> dict[str, Any]:
    """A task's event as the runner tells it, of lm-eval's own layout."""
    share = sum(correct) / len(correct)
    error = math.sqrt(share * (1 - share) / (len(correct) - 1))
    resps = [[log_likelihood, False], [-2.0, False]]
    return {
        "name": name,
        "results": {name: {"alias": name, "acc,none": share, "acc_stderr,none": error, "ppl,none": 7.0}},
        "samples": {
            name: [{"acc": each, "ppl": [1, 2], "filter": "none", "filtered_resps": resps} for each in correct]
        },
        "versions": {name: 1.0},
        "n-shot": {name: 5},
        "n-samples": {name: {"original": 100, "effective": len(correct)}},
    }


FAILED = {"name": "c", "error": "ClientError: 500"}


def results(*events: dict[str, Any]) -> list[lm_eval_results.TaskResult]:
    return [result for each in events for result in lm_eval_results.task_results(each)]


def test_a_task_has_its_interval_and_its_numbers() -> None:
    told = lm_eval_results.as_json(results(event("a", [1.0, 0.0, 1.0, 1.0])))
    task = told["tasks"]["a"]
    assert (task["n"], task["questions"], task["num_fewshot"], task["version"], task["error"]) == (4, 100, 5, 1.0, None)
    assert task["metrics"]["acc"]["value"] == 0.75
    assert task["metrics"]["acc"]["standard_error"] == pytest.approx(0.25)  # sqrt(0.75 * 0.25 / 3)
    assert task["metrics"]["acc"]["interval"] == mean_interval([1.0, 0.0, 1.0, 1.0], range(4))
    assert (told["average"], told["average_reason"], told["failed"]) == (None, "there is one task", 0)


def test_a_metric_that_is_no_mean_over_questions_has_no_interval() -> None:
    (result,) = results(event("a", [1.0, 0.0]))
    assert result.metrics["ppl"] == lm_eval_results.Metric(7.0, None, None, ())


def test_the_average_is_over_questions_and_not_over_tasks() -> None:
    told = lm_eval_results.as_json(results(event("a", [1.0, 1.0, 1.0, 0.0]), event("b", [0.0, 0.0])))
    assert list(told["average"]) == ["acc"]
    assert told["average"]["acc"]["value"] == 0.5
    assert told["average"]["acc"]["n"] == 6
    assert told["average"]["acc"]["standard_error"] == pytest.approx(math.sqrt(0.5 * 0.5 / 5))


def test_a_task_with_an_error_has_no_result_and_there_is_no_average() -> None:
    found = results(event("a", [1.0, 0.0]), event("b", [1.0, 0.0]), FAILED)
    told = lm_eval_results.as_json(found)
    assert told["tasks"]["c"]["metrics"] is None
    assert told["tasks"]["c"]["error"] == "ClientError: 500"
    assert (told["average"], told["average_reason"], told["failed"]) == (None, "1 of 3 tasks have no result", 1)
    lines = lm_eval_results.table_lines(found)
    assert any(line.startswith("c ") and "no result" in line for line in lines)
    assert lines[-2:] == ["c: ClientError: 500", "no average: 1 of 3 tasks have no result"]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_log_likelihood_that_is_no_number_is_an_error(value: float) -> None:
    (result,) = results(event("a", [1.0, 0.0], log_likelihood=value))
    assert result.metrics == {}
    assert result.error == "2 questions have a log-likelihood that is no finite number"


def test_a_group_has_lm_evals_own_numbers() -> None:
    group = {"alias": "all", "acc,none": 0.5, "acc_stderr,none": "N/A", "ppl,none": math.nan}
    told = lm_eval_results.group_numbers({"groups": {"all": group}})
    assert told == {"all": {"acc,none": 0.5, "acc_stderr,none": None, "ppl,none": None}}
    assert lm_eval_results.group_numbers(FAILED) == {}


def test_the_table_says_how_many_of_how_many() -> None:
    lines = lm_eval_results.table_lines(results(event("a", [1.0, 0.0]), event("b", [1.0, 1.0, 0.0])))
    assert lines[1].split() == ["a", "acc", "0.5000", "0.5000", "0.0000", "to", "1.0000", "5", "2", "of", "100"]
    assert lines[-1].endswith("5 of 200")
