"""What rewards a model's own completions while it learns from them. Who judges them is not known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.model_source import ModelInput

Messages = list[dict[str, str]]
Reward = Callable[[Sequence[Messages], Sequence[str]], list[float | None]]
"""Prompts, and a completion of each -> the completions' rewards, None for one that has none."""
LoadReward = Callable[[str], Reward]
"""A device (cuda or cpu) -> the reward, loaded there. It is pickled for every worker."""


@dataclass(frozen=True, eq=False)
class RewardInput:
    """A reward as a training stage reads it."""

    judge: Any
    """The semantic values of who judges."""
    locate: Callable[[Run], LoadReward]
    """A run -> its reward."""
    program: Callable[[], dict[str, str]] = dict
    """The fingerprints of a program that judges."""
    model: ModelInput | None = None
    """A reward model that judges."""

    def outside(self) -> dict[str, str]:
        """The fingerprints of what comes from outside of the run. Raises as a stage's."""
        return self.program() | (self.model.outside() if self.model else {})

    def commits(self) -> dict[str, str]:
        """The commits of a hub id. Raises as a stage's."""
        return self.model.commits() if self.model else {}

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The stages that it reads."""
        return self.model.inputs if self.model else {}

    @property
    def local_files(self) -> tuple[tuple[str, str], ...]:
        return self.model.local_files if self.model else ()


def as_trl(reward: Reward) -> Callable[..., list[float | None]]:
    """A reward as TRL's trainers call one: by keywords, with each completion as a list of one message.

    All workers call it at the same time. What a user has to mend is raised by all of them where one finds it: none
    waits for the rewards of another in vain.
    """

    def judge(prompts: Sequence[Messages], completions: Sequence[Messages], **others: Any) -> list[float | None]:
        from accelerate.utils import gather_object

        rewards: list[float | None] = []
        failure: list[str] = []
        try:
            rewards = reward(prompts, [completion[-1]["content"] for completion in completions])
        except UserError as error:
            failure.append(str(error))
        if failures := gather_object(failure):
            raise UserError(failures[0])
        return rewards

    return judge
