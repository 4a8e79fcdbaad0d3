"""Accuracy and calibration of a reward model on held-out pairs, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zephyr_ray.evaluation.reward_accuracy import BINS, calibration, confidences, markdown, summarise, table_lines

ODDS = math.log(4)  # a margin of it is a probability of 0.8
MARGINS = np.array([ODDS, ODDS, ODDS, -ODDS, 0.0])
PROMPTS = np.array(["a", "b", "c", "d", "d"])


def test_by_hand() -> None:
    found = summarise(MARGINS, PROMPTS, seed=0)
    value = {name: estimate.value for name, estimate in found.measures.items()}
    assert (found.pairs, found.prompts) == (5, 4)
    assert value["reward_accuracy"] == pytest.approx(3.5 / 5)
    assert value["reward_margin"] == pytest.approx(2 * ODDS / 5)
    assert value["log_loss"] == pytest.approx(-(3 * math.log(0.8) + math.log(0.2) + math.log(0.5)) / 5)
    assert value["brier_score"] == pytest.approx((3 * 0.04 + 0.64 + 0.25) / 5)
    assert value["overconfidence"] == pytest.approx((4 * 0.8 + 0.5) / 5 - 0.7)
    # In one bin four pairs, 0.8 sure and 0.75 right; in the first a tie, 0.5 sure and half right.
    assert found.calibration_error == pytest.approx(4 / 5 * 0.05)
    filled = [(each.low, each.pairs, each.confidence, each.accuracy) for each in found.calibration if each.pairs]
    assert filled[0] == (0.5, 1, 0.5, 0.5)
    assert filled[1] == pytest.approx((0.75, 4, 0.8, 0.75)) or filled[1] == pytest.approx((0.8, 4, 0.8, 0.75))
    assert "reward accuracy              70.0%" in "\n".join(table_lines(found))
    assert "| reward accuracy | 70.0% |" in markdown(found)


def test_a_model_that_says_how_often_it_is_right_is_calibrated() -> None:
    """Pairs that are won by the model's own probabilities, and the same of a model that is three times as sure."""
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 40_000)
    won = rng.random(len(margins)) < 1 / (1 + np.exp(-margins))
    margins = np.where(won, margins, -margins)
    prompts = np.arange(len(margins))
    right, sure = summarise(margins, prompts, 0), summarise(3 * margins, prompts, 0)
    assert right.calibration_error < 0.01 < 0.1 < sure.calibration_error
    assert right.measures["overconfidence"].low < 0 < right.measures["overconfidence"].high
    assert sure.measures["overconfidence"].low > 0.1
    assert right.measures["reward_accuracy"] == sure.measures["reward_accuracy"]


def test_every_pair_is_in_one_bin_and_nothing_overflows() -> None:
    margins = np.array([0.0, 1e-9, -1e-9, 1000.0, -1000.0, math.log(0.55 / 0.45)])
    bins = calibration(margins)
    assert len(bins) == BINS
    assert sum(each.pairs for each in bins) == len(margins)
    assert bins[-1].pairs == 2
    assert np.isfinite(confidences(margins)).all()
    found = summarise(margins, np.arange(len(margins)), 0)
    assert all(np.isfinite(each).all() for each in found.measures.values())
