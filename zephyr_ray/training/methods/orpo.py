"""Odds ratio preference optimization (ORPO, arXiv 2403.07691): one training in place of dSFT and dDPO, no reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from zephyr_ray.config.training import Optimisation
from zephyr_ray.training.methods import Method, Trainers

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows


class ORPO(Optimisation):
    learning_rate: float = Field(5e-6, gt=0)
    beta: float = Field(0.1, gt=0)
    """Weight of the odds ratio's loss beside that of SFT (the paper's lambda)."""
    nll_on: Literal["all", "completion"] = "all"
    """Which tokens SFT's loss learns: the prompt and the chosen completion (as TRL and Zephyr-141B), or the chosen
    completion's only."""


def options(section: ORPO) -> dict[str, Any]:
    """What is fixed, under TRL's names: the `tokenized` stage has truncated, and there is no reference."""
    return {"max_length": None, "precompute_ref_log_probs": True}


def load_rows(section: ORPO, tokenized: Artifact, reference_logps: Artifact | None) -> Rows:
    """The pairs alone."""
    from zephyr_ray.training.dataset import load_pairs

    return load_pairs(tokenized)


def trainers() -> Trainers:
    from trl import DPOConfig

    from zephyr_ray.training.trainers.orpo import PackedORPOTrainer

    return Trainers(DPOConfig, packed=PackedORPOTrainer)


_NO_REFERENCE = "ORPO has no reference"
_NOT_DPO = "an option of DPO's loss; ORPO has beta and nll_on"

METHOD = Method(
    name="orpo",
    section=ORPO,
    rows="pairs",
    meets_a_reference=False,
    length_field="tokenized.max_length",
    options=options,
    load_rows=load_rows,
    trainers=trainers,
    passed=frozenset({"disable_dropout"}),
    refused={
        "beta": "set orpo.beta",
        "loss_type": _NOT_DPO,
        "loss_weights": _NOT_DPO,
        "label_smoothing": _NOT_DPO,
        "discopop_tau": _NOT_DPO,
        "f_alpha_divergence_coef": _NOT_DPO,
        "f_divergence_type": _NOT_DPO,
        "ld_alpha": _NOT_DPO,
        "use_weighting": _NOT_DPO,
        "max_length": "set tokenized.max_length",
        "truncation_mode": "set tokenized.max_length and tokenized.max_prompt_length",
        "pad_to_multiple_of": "packed rows have no padding",
        "precompute_ref_log_probs": _NO_REFERENCE,
        "precompute_ref_batch_size": _NO_REFERENCE,
        "sync_ref_model": _NO_REFERENCE,
        "ref_model_mixup_alpha": _NO_REFERENCE,
        "ref_model_sync_steps": _NO_REFERENCE,
    },
    shown={"log_odds_chosen": "log odds ratio", "rewards/accuracies": "accuracy"},
)
