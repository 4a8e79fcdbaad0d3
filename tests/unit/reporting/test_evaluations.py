"""Results of evaluations in the forms in which they are written, as estimates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zephyr_ray.evaluation import alpaca_eval, mt_bench, mt_bench_pairs
from zephyr_ray.evaluation.fastchat_files import Judgment, PairJudgment
from zephyr_ray.reporting.evaluations import Duel, evaluated


def written(value: Any) -> Any:
    """As it is read from a file."""
    return json.loads(json.dumps(value))


def estimates(summary: Any) -> dict[tuple[str, str], tuple[float, float, float, float | None]]:
    found = evaluated("evaluation/x", summary).estimates
    return {(each.what, each.model): (each.value, each.low, each.high, each.neutral) for each in found}


def test_a_function_that_gives_rates_and_a_difference() -> None:
    rates = {"sft": {"mean": 0.4, "low": 0.3, "high": 0.5}, "dpo": {"mean": 0.7, "low": 0.6, "high": 0.8}}
    found = estimates({"pass_rate": rates, "dpo_minus_sft": {"mean": 0.3, "low": 0.2, "high": 0.4}})
    assert found[("pass rate", "dpo")] == (0.7, 0.6, 0.8, None)
    assert found[("dpo minus sft", "")] == (0.3, 0.2, 0.4, 0.0)


def test_held_out_preferences_name_what_chance_is() -> None:
    interval = {"value": 0.6, "low": 0.55, "high": 0.65}
    found = estimates({"measures": {"implicit_reward_accuracy": interval, "policy_logp_accuracy": interval}})
    assert found[("implicit reward accuracy", "")][3] == 0.5
    assert found[("policy logp accuracy", "")][3] is None


def test_mt_bench_as_it_is_written() -> None:
    judgments = [
        Judgment(question, "zephyr", "gpt-4", 1, score, None)
        for question, score in ((1, 8.0), (2, 6.0), (3, 4.0), (4, 10.0))
    ]
    questions: dict[int | str, dict[str, Any]] = {
        number: {"category": name, "turns": [""]} for number, name in enumerate(("a", "b", "c", "a"), 1)
    }
    made = written(mt_bench.as_json(mt_bench.summarise(judgments, questions)))
    found = evaluated("evaluation/mt_bench", made)
    assert found.categories == {"zephyr": {"a": 9.0, "b": 6.0, "c": 4.0}}
    (average,) = found.by_measure()["average"]
    assert (average.model, average.value, average.neutral, average.shown) == ("zephyr", 7.0, None, "7")
    assert average.low < 7.0 < average.high


def test_pairs_are_duels_and_rates_against_half() -> None:
    judged = [
        PairJudgment(number, "a", "b", 1, game, game, None) for number, game in enumerate(["model_1", "model_1", "tie"])
    ]
    made = evaluated("evaluation/pairs", written(mt_bench_pairs.as_json(judged)))
    assert made.duels == [Duel("a", "b", pytest.approx(2.5 / 3))]  # type: ignore[arg-type]
    assert {(each.what, each.neutral) for each in made.estimates} == {("win rate", 0.5), ("a against b", 0.5)}


def test_alpaca_evals_rate_is_in_percent() -> None:
    rows = [
        {"generator_1": "base", "generator_2": "mine", "preference": p, "instruction": str(p)} for p in (1, 2, 2, 1.2)
    ]
    made = evaluated("evaluation/alpaca_eval", written(alpaca_eval.as_json(alpaca_eval.summarise(rows))))
    assert [(each.what, each.neutral, each.is_share) for each in made.estimates] == [("mine against base", 50.0, False)]
    low = {"model": "m", "baseline": "b", "win_rate": 0.9, "interval": [0.4, 1.4]}
    made = evaluated("evaluation/alpaca_eval", {"models": {"m": low}})
    assert (made.estimates[0].shown, made.duels[0].rate) == ("0.9", pytest.approx(0.009))


def test_what_holds_no_interval_is_no_estimate() -> None:
    assert (
        evaluated("x", {"a": {"value": 1.0, "low": None, "high": 2}, "b": [1, 2], "c": {"interval": [0, 1]}}).estimates
        == []
    )
    assert evaluated("x", None).estimates == evaluated("x", [3]).estimates == []


def test_a_against_b_with_its_categories() -> None:
    """The form in which two models' comparisons are written, rates as shares."""
    wins = {"win_rate": 0.6, "interval": [0.5, 0.7], "n": 40}
    parts = {
        "length_controlled": {"win_rate": 0.55, "interval": [0.45, 0.65], "n": 40},
        "score_difference": {"value": 0.2, "interval": [-0.1, 0.5], "n": 40},
        "categories": {"math": {"value": 0.4, "interval": [0.2, 0.6], "n": 9}},
    }
    made = evaluated("evaluation/versus", {"a": "dpo", "b": "sft", **wins, **parts})
    found = {each.what: each.neutral for each in made.estimates}
    assert found == {
        "dpo against sft": 0.5,
        "length controlled": 0.5,
        "score difference": 0.0,
        "categories math": None,
    }
    assert made.duels == [Duel("dpo", "sft", 0.6)]
    assert made.by_measure() == {}
