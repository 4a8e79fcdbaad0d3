"""AlpacaEval's win rate and standard error by hand: draws, nulls, and what is no preference."""

from __future__ import annotations

import math
from typing import Any

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.alpaca_eval import as_json, summarise, table_lines


def rows(*preferences: object, **others: object) -> list[dict[str, Any]]:
    return [
        {"instruction": f"i{number}", "generator_1": "base", "generator_2": "mine", "preference": preference, **others}
        for number, preference in enumerate(preferences)
    ]


def test_by_hand() -> None:
    rate = summarise(rows(2.0, 1.0, 0.0, 1.5, 1.25, None, 3, "2"))
    # 1, 0, 1/2, 1/2, 1/4: mean 0.45; squares around it .3025 + .2025 + .0025 + .0025 + .04 = .55, over 4
    assert rate.win_rate == pytest.approx(45)
    assert rate.standard_error == pytest.approx(100 * math.sqrt(0.55 / 4 / 5))
    assert (rate.wins, rate.losses, rate.draws) == (1, 2, 2)
    assert rate.discrete_win_rate == pytest.approx(100 * (1 + 2 / 2) / 5)
    assert (rate.n, rate.rows, rate.left_out) == (5, 8, {"no_preference": 2, "null": 1})
    assert rate.interval is not None
    assert rate.interval[0] < 45 < rate.interval[1]


def test_what_is_written() -> None:
    told = as_json(summarise(rows(2, 1, None)))
    assert {name: told[name] for name in ("win_rate", "standard_error", "n", "length_controlled_win_rate")} == {
        "win_rate": 50.0,
        "standard_error": pytest.approx(50.0),
        "n": 2,
        "length_controlled_win_rate": None,
    }
    assert "difficulty" in told["length_controlled_reason"]
    lines = table_lines(summarise(rows(2, 1, None)))
    assert lines[1].split()[:3] == ["mine", "50.00", "50.00"]
    assert lines[1].endswith("2 of 3")
    assert "left out 1 null" in lines


def test_a_model_against_itself_is_half_at_any_length() -> None:
    rate = summarise([row | {"generator_1": "mine"} for row in rows(1.5, 1.5)])
    assert (rate.win_rate, rate.standard_error, rate.length_controlled_win_rate) == (50.0, 0.0, 50.0)


def test_one_preference_has_no_error() -> None:
    rate = summarise([{"preference": 1.75}])
    assert (rate.win_rate, rate.standard_error, rate.interval, rate.model) == (75.0, None, None, "")


def test_a_failed_answer_is_none() -> None:
    rate = summarise([*rows(1, 2), *rows(1, output_2="$ERROR$")])
    assert (rate.n, rate.left_out) == (2, {"answer_error": 1})


def test_a_repeated_instruction_counts_and_is_told() -> None:
    rate = summarise([*rows(2, 1), *rows(2, 1)])
    assert (rate.n, rate.repeated) == (4, 2)
    assert rate.interval == (0.0, 100.0)  # of two instructions, not of four rows


def test_what_is_no_annotation_is_refused() -> None:
    with pytest.raises(UserError, match="none of 2 annotations has a preference from 1 to 2, or 0"):
        summarise([{"score": 3}, {"preference": None}])
    with pytest.raises(UserError, match=r"2 of generator_2 \(mine, other\); give one file for each"):
        summarise([*rows(1), *rows(2, generator_2="other")])
