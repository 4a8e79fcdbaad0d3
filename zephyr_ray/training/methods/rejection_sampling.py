"""Rejection sampling (best of n): SFT on the best of a model's own answers to each prompt (arXiv 2307.09288, section
3.2.3; RAFT, arXiv 2304.06767)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from zephyr_ray.config.data import BestAnswers
from zephyr_ray.config.training import Optimisation
from zephyr_ray.training.methods import Method, Trainers, sft
from zephyr_ray.training.trl_options import EVALUATION

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows


class RejectionSampling(Optimisation):
    learning_rate: float = Field(5e-6, gt=0)
    max_length: int = Field(2048, ge=8)
    """Tokens of a prompt and its answer; a longer answer is cut."""
    answers: BestAnswers = BestAnswers()


def options(section: RejectionSampling) -> dict[str, Any]:
    """As SFT's: the rows are tokenized and cut by the stage before."""
    return {"max_length": None, "packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}


def load_rows(section: RejectionSampling, tokenized: Artifact, reference_logps: Artifact | None) -> Rows:
    """The prompts with their answers, which alone are learnt."""
    from zephyr_ray.training.dataset import load_dialogues

    return load_dialogues(tokenized, "assistant")


def trainers() -> Trainers:
    return sft.trainers()._replace(padded=None)


METHOD = Method(
    name="rejection_sampling",
    section=RejectionSampling,
    rows="best_answers",
    meets_a_reference=False,
    length_field="rejection_sampling.max_length",
    options=options,
    load_rows=load_rows,
    trainers=trainers,
    passed=frozenset({"loss_type"}),
    refused={name: way.replace("sft.", "rejection_sampling.") for name, way in sft.METHOD.refused.items()}
    | dict.fromkeys(EVALUATION, "no dialogues are held out of it: preferences.held_out tells what it learnt")
    | {
        "completion_only_loss": "the answer alone is learnt",
        "assistant_only_loss": "the answer alone is learnt",
        "packing": "whole dialogues share rows, and none sees another",
        "packing_strategy": "whole dialogues share rows, and none sees another",
        "eval_strategy": "no dialogues are held out of it",
        "eval_steps": "no dialogues are held out of it",
        "eval_on_start": "no dialogues are held out of it",
        "eval_packing": "no dialogues are held out of it",
    },
)
