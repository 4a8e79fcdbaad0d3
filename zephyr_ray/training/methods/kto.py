"""Kahneman-Tversky optimization (KTO, arXiv 2402.01306) on completions of which each is desirable or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from zephyr_ray.config.section import compute
from zephyr_ray.config.training import Optimisation
from zephyr_ray.training.methods import Method, Trainers

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows
    from zephyr_ray.training.settings import TrainingSettings


class KTO(Optimisation):
    learning_rate: float = Field(1e-6, gt=0)
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference; the paper's risk aversion."""
    desirable_weight: float = Field(1.0, gt=0)
    """Weight of a desirable completion's loss (the paper's lambda_D)."""
    undesirable_weight: float = Field(1.0, gt=0)
    """Weight of an undesirable completion's loss (lambda_U)."""
    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """TRL's names: kto, or without the KL term the unpaired APO-zero (arXiv 2408.06266)."""
    step0_tolerance: float | None = compute(None, gt=0)
    """As `dpo.step0_tolerance`."""

    @property
    def meets_others(self) -> bool:
        """Whether a row's prompt meets another row's completion, to estimate the KL term."""
        return self.loss_type == "kto"

    @model_validator(mode="after")
    def _a_prompt_meets_another_completion(self) -> KTO:
        if self.meets_others and self.global_batch == 1:
            raise ValueError(
                "global_batch=1: the KL term is estimated from the completions of other rows of a step; set it to 2 or "
                "more (16 or more for a good estimate), or set loss_type=apo_zero_unpaired"
            )
        return self

    @model_validator(mode="after")
    def _rows_are_packed(self) -> KTO:
        if self.training.engine == "padded":
            raise ValueError("training.engine=padded: kto trains on packed rows only; leave it out")
        return self


def options(section: KTO) -> dict[str, Any]:
    """The section under TRL's names."""
    return {
        "beta": section.beta,
        "desirable_weight": section.desirable_weight,
        "undesirable_weight": section.undesirable_weight,
        "loss_type": section.loss_type,
        "max_length": None,  # the stage `tokenized_unpaired` has truncated
        "precompute_ref_log_probs": True,  # the stage `unpaired_reference_logps` has computed
        "per_device_train_batch_size": section.global_batch,  # which TRL wants over 1; micro-batches are the plan's
    }


def load_rows(section: KTO, tokenized: Artifact, reference_logps: Artifact | None) -> Rows:
    """The completions with their reference's log-probs."""
    from zephyr_ray.training.dataset import load_unpaired

    return load_unpaired(tokenized, reference_logps)


def trainers() -> Trainers:
    from trl import KTOConfig

    from zephyr_ray.training.trainers.kto import PackedKTOTrainer

    return Trainers(KTOConfig, packed=PackedKTOTrainer)


def guards(trainer: Any, settings: TrainingSettings, dtype: str) -> list[TrainerCallback]:
    """At the first step the policy is the reference still."""
    from zephyr_ray.training.reference_guard import TOLERANCE, FirstStepGuard

    assert isinstance(settings.section, KTO)
    return [FirstStepGuard(trainer, settings.section.step0_tolerance or TOLERANCE[dtype], "kto")]


_FIXED_REFERENCE = "the reference is the model that KTO starts from, scored once by unpaired_reference_logps"

METHOD = Method(
    name="kto",
    section=KTO,
    rows="unpaired",
    meets_a_reference=True,
    length_field="tokenized.max_length",
    options=options,
    load_rows=load_rows,
    trainers=trainers,
    guards=guards,
    passed=frozenset({"disable_dropout"}),
    refused={
        "beta": "set kto.beta",
        "desirable_weight": "set kto.desirable_weight",
        "undesirable_weight": "set kto.undesirable_weight",
        "loss_type": "set kto.loss_type",
        "max_length": "set tokenized.max_length",
        "pad_to_multiple_of": "packed rows have no padding",
        "precompute_ref_log_probs": _FIXED_REFERENCE,
        "precompute_ref_batch_size": _FIXED_REFERENCE,
        "sync_ref_model": _FIXED_REFERENCE,
        "ref_model_mixup_alpha": _FIXED_REFERENCE,
        "ref_model_sync_steps": _FIXED_REFERENCE,
    },
    lacks=frozenset({"pad_token", "padding_free"}),
    shown={"rewards/margins": "margin", "kl": "kl"},
)
