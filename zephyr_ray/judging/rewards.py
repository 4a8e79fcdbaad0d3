"""A recipe's judge as the reward of a training on a model's own completions: a program or a reward model.

A language model as judge would have to be served beside the training; a reward model learns its judgment
(docs/reward_model.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from zephyr_ray.config.feedback import FunctionJudge, Judging, RewardModelJudge
from zephyr_ray.config.section import semantic
from zephyr_ray.errors import UserError
from zephyr_ray.judging.function_judge import check_score, load_judge, program_fingerprints
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.model_source import ModelInput, ModelSource
from zephyr_ray.training.rewards import LoadReward, Messages, Reward, RewardInput


def reward_of(judging: Judging | None, method: str, model: ModelInput | None) -> RewardInput:
    """The reward that a method learns from.

    Args:
        judging: The recipe's section.
        method: Its name.
        model: The reward model, where the judge is one.

    Raises:
        UserError: There is no judge, or one that gives no rewards while a model trains.
    """
    if judging is None:
        raise UserError(
            f"{method}: the recipe has no judging section, whose judge rewards completions; add one with a judge of "
            "type function or reward_model"
        )
    judge = judging.judge
    if isinstance(judge, FunctionJudge):
        name = judge.function
        return RewardInput(
            semantic(judge), lambda run: partial(program_reward, function=name), partial(program_fingerprints, name)
        )
    if isinstance(judge, RewardModelJudge) and model is not None:
        size = judge.batch_size

        def locate(run: Run) -> LoadReward:
            return partial(model_reward, source=model.source(run), batch_size=size)

        return RewardInput(semantic(judge), locate, model=model)
    raise UserError(
        f"{method}: a judge of type {judge.type} cannot reward completions while a model trains; set judging.judge to "
        "one of type function or reward_model"
    )


def program_reward(device: str, *, function: str) -> Reward:
    """The function's scores. Raises as `load_judge`, and `UserError` for what is no score."""
    judge = load_judge(function)

    def scores(prompts: Sequence[Messages], completions: Sequence[str]) -> list[float | None]:
        pairs = zip(prompts, completions, strict=True)
        return [check_score(judge([dict(each) for each in prompt], text), function) for prompt, text in pairs]

    return scores


def model_reward(device: str, *, source: ModelSource, batch_size: int) -> Reward:
    """The reward model's outputs. Raises as `RewardModel`."""
    from zephyr_ray.judging.reward_judge import RewardModel

    model = RewardModel(source, batch_size=batch_size, device=device)
    return lambda prompts, completions: model.score(list(zip(prompts, completions, strict=True)))
