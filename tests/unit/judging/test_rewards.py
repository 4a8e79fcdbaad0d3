"""The recipe's judge as the reward of a training, and the judges that cannot be one."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from zephyr_ray import zephyr
from zephyr_ray.errors import UserError
from zephyr_ray.judging.rewards import program_reward, reward_of
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.training.methods import load_recipe
from zephyr_ray.training.rewards import as_trl

PROGRAM = "judging.judge={type: function, function: 'tests.unit.judging.test_rewards:length'}"
ENDPOINT = "{type: endpoint, name: j, model: m, base_url: 'http://h/v1'}"
GIVEN = ("model.path=/m", "prompts.train=prompts.jsonl", "preferences.train=pairs.jsonl", "grpo={}")
PROMPTS: Any = [[{"role": "user", "content": "Say a."}], [{"role": "user", "content": "Say nothing."}]]


def length(messages: list[dict[str, str]], answer: str) -> float | None:
    """By how many letters an answer is shorter than its question; None for one that says nothing."""
    return len(messages[-1]["content"]) - len(answer) if answer else None


def unfit(messages: list[dict[str, str]], answer: str) -> Any:
    return "good"


def test_a_program_by_hand_as_trl_calls_it() -> None:
    section = load_recipe([], [*GIVEN, PROGRAM]).judging
    load = pickle.loads(pickle.dumps(reward_of(section, "grpo", None).locate(Run("/nowhere"))))
    completions = [[{"role": "assistant", "content": text}] for text in ("abc", "")]
    judge = as_trl(load("cpu"))
    assert judge(prompts=PROMPTS, completions=completions, completion_ids=[[1], [2]], trainer_state=None) == [3, None]


def test_what_is_no_score_is_refused_by_the_functions_name() -> None:
    name = "tests.unit.judging.test_rewards:unfit"
    with pytest.raises(UserError, match=rf"^{name} returned 'good'; return a finite number"):
        as_trl(program_reward("cpu", function=name))(PROMPTS, [[{"role": "assistant", "content": "a"}]] * 2)


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        (
            f"judging.judge={{type: language_models, models: [{ENDPOINT}]}}",
            "grpo: a judge of type language_models cannot reward completions while a model trains; set judging.judge",
        ),
        (
            "judging.judge={type: delta, chosen: a, rejected: b}",
            "grpo: a judge of type delta cannot reward completions",
        ),
        ("run.seed=1", "grpo: the recipe has no judging section, whose judge rewards completions; add one"),
        (
            "judging.judge={type: reward_model, model: reward_model}",
            "judging.judge.model=reward_model: this recipe has no such stage; add a section reward_model",
        ),
    ],
)
def test_what_rates_nothing_while_a_model_trains_is_refused(judge: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        zephyr.select(load_recipe([], [*GIVEN, judge]), ["grpo"])
    assert str(caught.value).startswith(says)


def test_the_runs_own_reward_model_is_trained_first() -> None:
    own = "judging.judge={type: reward_model, model: reward_model}"
    stages = zephyr.select(load_recipe([], [*GIVEN, own, "reward_model={}"]), ["grpo"])
    assert [stage.name for stage in stages] == ["prompts", "preferences", "tokenized", "reward_model", "grpo"]
    assert stages[-1].inputs["reward_model"] is stages[-2]


def test_without_prompts_nothing_is_completed() -> None:
    given = [each for each in GIVEN if not each.startswith("prompts")]
    with pytest.raises(UserError, match=r"^prompts\.train"):
        zephyr.select(load_recipe([], [*given, PROGRAM]), ["grpo"])
