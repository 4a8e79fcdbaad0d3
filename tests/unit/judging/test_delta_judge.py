"""Delta learning: pairs of two models' completions, which nobody reads."""

import re

import pytest

from tests.unit.judging.examples import row
from zephyr_ray.config import loader
from zephyr_ray.data.binarize import binarize
from zephyr_ray.errors import UserError
from zephyr_ray.judging.delta_judge import judge_by_model

POOL = "sampling.pool=[" + ", ".join(
    f"{{type: endpoint, name: m{number}, base_url: 'http://host/v1', model: m}}" for number in range(3)
)
POOL += "]"


def delta(chosen: str, rejected: str) -> str:
    return f"judging.judge={{type: delta, chosen: {chosen}, rejected: {rejected}}}"


def test_a_pair_is_one_completion_of_each_model() -> None:
    judged = judge_by_model(row("owl", "stone", "raven"), chosen="m2", rejected="m0")
    assert [each["overall_score"] for each in judged["completions"]] == [0.0, None, 1.0]
    ((chosen, rejected),) = binarize(judged["completions"])
    assert (chosen.text, rejected.text) == ("raven", "owl")


def test_a_recipe_names_two_models_of_the_pool() -> None:
    recipe = loader.load([], [POOL, delta("m2", "m0")])
    assert recipe.judging
    assert recipe.judging.judge.type == "delta"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([delta("m1", "m1")], "chosen and rejected are both m1; name two models of sampling.pool"),
        ([delta("m1", "m7")], "judging.judge.rejected=m7: sampling.pool has m0, m1, m2"),
        ([delta("m7", "m1")], "judging.judge.chosen=m7: sampling.pool has m0, m1, m2"),
        (
            ["sampling.draw=2", delta("m1", "m0")],
            "sampling.draw=2 asks some of 3 models, and judging.judge of type delta needs the answers of both",
        ),
        (
            [delta("m1", "m0"), "evaluation.judge_agreement={pairs: x.json, judge: {type: delta}}"],
            "evaluation.judge_agreement.judge",
        ),
    ],
)
def test_what_gives_no_pair_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        loader.load([], [POOL, *overrides])
