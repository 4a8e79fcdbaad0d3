"""Direct preference optimization (arXiv 2305.18290) on pairs whose reference log-probs are columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zephyr_ray.config.training import DPO
from zephyr_ray.errors import UserError
from zephyr_ray.training.methods import Groups, Method, Trainers

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows
    from zephyr_ray.training.settings import TrainingSettings

_FIXED_REFERENCE = "the reference is the model that DPO starts from, scored once by reference_logps"


def options(section: DPO) -> dict[str, Any]:
    """The section under TRL's names.

    Raises:
        UserError: There is no such loss.
    """
    from zephyr_ray.training.losses import LOSSES

    if unknown := set(section.loss_type) - LOSSES.keys():
        raise UserError(f"dpo.loss_type={', '.join(sorted(unknown))}: not one of {', '.join(LOSSES)}")
    return {
        "beta": section.beta,
        "loss_type": list(section.loss_type),
        "loss_weights": list(section.loss_weights) if section.loss_weights else None,
        "label_smoothing": section.label_smoothing,
        "max_length": None,  # the `tokenized` stage has truncated
        "precompute_ref_log_probs": True,  # the `reference_logps` stage has computed
    }


def load_rows(section: DPO, tokenized: Artifact, reference_logps: Artifact | None) -> Rows:
    """The pairs with their reference's log-probs."""
    from zephyr_ray.training.dataset import load_pairs

    return load_pairs(tokenized, reference_logps)


def load_groups(section: DPO, groups: Artifact, reference_logps: Artifact | None) -> Rows:
    """The groups with their reference's log-probs."""
    from zephyr_ray.training import dataset

    assert reference_logps is not None
    return dataset.load_groups(groups, reference_logps)


def check_groups(section: DPO) -> None:
    """Refuses what groups cannot be trained by.

    Raises:
        UserError: Naming the field, and what to set instead.
    """
    one_by_one = "set preferences.rejected to random_lower or lowest, which give one pair of a prompt"
    if section.training.engine == "padded":
        raise UserError(
            "dpo.training.engine=padded: with preferences.rejected=every_pair a prompt lies once in a packed row with "
            f"all of its completions; set engine=packed, or {one_by_one}"
        )
    if "ld_alpha" in section.training.trl:
        raise UserError(
            "dpo.training.trl.ld_alpha: with preferences.rejected=every_pair a completion has one log-prob in all of "
            f"its pairs, and ld_alpha another one in each; leave it out, or {one_by_one}"
        )


def trainers() -> Trainers:
    from trl import DPOConfig

    from zephyr_ray.training.trainers.dpo import PackedDPOTrainer, PlannedDPOTrainer
    from zephyr_ray.training.trainers.groups import GroupedDPOTrainer

    return Trainers(DPOConfig, PackedDPOTrainer, PlannedDPOTrainer, GroupedDPOTrainer)


def guards(trainer: Any, settings: TrainingSettings, dtype: str) -> list[TrainerCallback]:
    """At the first step the policy is the reference still; in a later round that meets the first one's reference they
    differ by any finite number."""
    from zephyr_ray.training.reference_guard import TOLERANCE, FirstStepGuard

    assert isinstance(settings.section, DPO)
    tolerance = settings.section.step0_tolerance or TOLERANCE[dtype]
    return [FirstStepGuard(trainer, tolerance if settings.starts_as_reference else math.inf)]


METHOD = Method(
    name="dpo",
    section=DPO,
    rows="pairs",
    meets_a_reference=True,
    length_field="tokenized.max_length",
    options=options,
    load_rows=load_rows,
    trainers=trainers,
    groups=Groups(load_groups, check_groups),
    guards=guards,
    passed=frozenset(
        {
            "disable_dropout",
            "discopop_tau",
            "f_alpha_divergence_coef",
            "f_divergence_type",
            "ld_alpha",
            "pad_to_multiple_of",  # of padded rows, the reference stage's too
            "use_weighting",
        }
    ),
    refused={
        "beta": "set dpo.beta",
        "loss_type": "set dpo.loss_type",
        "loss_weights": "set dpo.loss_weights",
        "label_smoothing": "set dpo.label_smoothing",
        "max_length": "set tokenized.max_length",
        "truncation_mode": "set tokenized.max_length and tokenized.max_prompt_length",
        "precompute_ref_log_probs": _FIXED_REFERENCE,
        "precompute_ref_batch_size": "set reference_logps.batch_size",
        "sync_ref_model": _FIXED_REFERENCE,
        "ref_model_mixup_alpha": _FIXED_REFERENCE,
        "ref_model_sync_steps": _FIXED_REFERENCE,
    },
    shown={"rewards/margins": "margin", "rewards/accuracies": "accuracy"},
)
