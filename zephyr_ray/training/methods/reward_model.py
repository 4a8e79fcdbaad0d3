"""A reward model on preference pairs: a scalar head on a language model, learnt by Bradley-Terry (arXiv 2203.02155)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from zephyr_ray.config.training import Optimisation
from zephyr_ray.training.methods import Method, Trainers
from zephyr_ray.training.trl_options import NO_DATASET

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows


class RewardModel(Optimisation):
    learning_rate: float = Field(1e-5, gt=0)
    margin: float = Field(0.0, ge=0)
    """By how much a chosen completion's reward has to lead, for each point that its score leads (Llama 2, arXiv
    2307.09288, equation 2; TRL's column `margin`). 0: not at all, and no scores are read."""
    center_rewards_coefficient: float | None = Field(None, gt=0)
    """Weight of the squared sum of a pair's rewards, which holds their mean at 0 (arXiv 2312.09244, which takes 0.01).
    None: rewards are centred nowhere."""


def options(section: RewardModel) -> dict[str, Any]:
    """The section under TRL's names; the `tokenized` stage has truncated."""
    return {"max_length": None, "center_rewards_coefficient": section.center_rewards_coefficient}


def load_rows(section: RewardModel, tokenized: Artifact, preferences: Artifact | None) -> Rows:
    """The pairs, with their margins where the section has any."""
    from zephyr_ray.training.dataset import load_pairs, load_pairs_with_margins

    if preferences is None:
        return load_pairs(tokenized)
    return load_pairs_with_margins(tokenized, preferences, section.margin)


def trainers() -> Trainers:
    from trl import RewardConfig

    from zephyr_ray.training.trainers.reward_model import PackedRewardTrainer

    return Trainers(RewardConfig, packed=PackedRewardTrainer)


METHOD = Method(
    name="reward_model",
    section=RewardModel,
    rows="pairs",
    meets_a_reference=False,
    length_field="tokenized.max_length",
    options=options,
    load_rows=load_rows,
    trainers=trainers,
    makes_reward_model=True,
    reads_scores=lambda section: section.margin > 0,
    passed=frozenset({"disable_dropout"}),
    refused={
        "center_rewards_coefficient": "set reward_model.center_rewards_coefficient",
        "max_length": "set tokenized.max_length",
        "pad_to_multiple_of": "packed rows have no padding",
        "chat_template_path": "set chat.template",
        "eos_token": "it is the tokenizer's own",
        "dataset_num_proc": NO_DATASET,
    },
    lacks=frozenset({"padding_free", "router_aux_loss_coef"}),
    shown={"accuracy": "accuracy", "margin": "margin"},
)
