"""REINFORCE leave-one-out (RLOO, arXiv 2402.14740): a model learns from its own completions, each rewarded against the
mean of the others of its prompt."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from zephyr_ray.training import on_policy
from zephyr_ray.training.methods import Method, Trainers


class RLOO(on_policy.OnPolicy):
    beta: float = Field(0.05, ge=0)
    """What a completion's reward loses by each nat that the model gives it more than the one that training starts from
    does. 0: nothing is compared."""
    completions: int = Field(4, ge=2)
    """Completions of each prompt, which are compared with each other (TRL's num_generations; k of the paper)."""


def options(section: RLOO) -> dict[str, Any]:
    """The section under TRL's names."""
    return on_policy.options(section) | {"beta": section.beta}


def trainers() -> Trainers:
    from trl import RLOOConfig

    from zephyr_ray.training.trainers.on_policy import OnPolicyRLOOTrainer

    return Trainers(RLOOConfig, packed=None, padded=OnPolicyRLOOTrainer)


METHOD = Method(
    name="rloo",
    section=RLOO,
    rows="prompts",
    meets_a_reference=False,
    length_field="rloo.max_new_tokens",
    options=options,
    load_rows=on_policy.load_rows,
    trainers=trainers,
    packs=lambda section: False,
    rank_plan=on_policy.rank_plan,
    passed=on_policy.PASSED | {"normalize_advantages", "reward_clip_range"},
    refused=on_policy.REFUSED,
    lacks=on_policy.LACKS,
    shown=on_policy.SHOWN,
)
