"""Group relative policy optimization (GRPO, arXiv 2402.03300): a model learns from its own completions, each rewarded
against the others of its prompt."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from zephyr_ray.training import on_policy
from zephyr_ray.training.methods import Method, Trainers


class GRPO(on_policy.OnPolicy):
    beta: float = Field(0.04, ge=0)
    """Weight of the KL divergence from the model that training starts from, by token. 0: none is computed."""
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    """How tokens are averaged, by TRL's names. grpo: within each completion, then over completions, as in the paper;
    dapo: over all tokens of the step; dr_grpo: over completions, each by `max_new_tokens`."""


def options(section: GRPO) -> dict[str, Any]:
    """The section under TRL's names."""
    return on_policy.options(section) | {"beta": section.beta, "loss_type": section.loss_type}


def trainers() -> Trainers:
    from trl import GRPOConfig

    from zephyr_ray.training.trainers.on_policy import OnPolicyGRPOTrainer

    return Trainers(GRPOConfig, packed=None, padded=OnPolicyGRPOTrainer)


_OF_ANOTHER_LOSS = "an option of a loss that grpo.loss_type does not have"

METHOD = Method(
    name="grpo",
    section=GRPO,
    rows="prompts",
    meets_a_reference=False,
    length_field="grpo.max_new_tokens",
    options=options,
    load_rows=on_policy.load_rows,
    trainers=trainers,
    packs=lambda section: False,
    rank_plan=on_policy.rank_plan,
    passed=on_policy.PASSED
    | {
        "cast_lm_head_to_fp32",
        "delta",
        "entropy_coef",
        "entropy_coef_delta",
        "entropy_coef_max",
        "entropy_coef_min",
        "entropy_target",
        "importance_sampling_level",
        "off_policy_mask_threshold",
        "scale_rewards",
        "top_entropy_quantile",
        "use_adaptive_entropy",
        "use_bias_correction_kl",
        "vllm_importance_sampling_clip_max",
        "vllm_importance_sampling_clip_min",
        "vllm_importance_sampling_correction",
        "vllm_importance_sampling_mode",
    },
    refused=on_policy.REFUSED
    | {
        "loss_type": "set grpo.loss_type",
        "multi_objective_aggregation": "there is one reward, that of the judging section's judge",
        "max_tool_calling_iterations": "completions call no tools",
        "log_completions_hub_repo": "nothing is pushed from training",
        "sapo_temperature_neg": _OF_ANOTHER_LOSS,
        "sapo_temperature_pos": _OF_ANOTHER_LOSS,
        "vespo_k_pos": _OF_ANOTHER_LOSS,
        "vespo_k_neg": _OF_ANOTHER_LOSS,
        "vespo_lambda_pos": _OF_ANOTHER_LOSS,
        "vespo_lambda_neg": _OF_ANOTHER_LOSS,
        "vllm_importance_sampling_cap": "an old name of vllm_importance_sampling_clip_max",
    },
    lacks=on_policy.LACKS,
    shown=on_policy.SHOWN,
)
