"""What the methods share that learn from their own completions of prompts: TRL's names, and which options pass.

Imports nothing heavy: every command reads the methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from zephyr_ray.config.section import compute
from zephyr_ray.config.training import Optimisation

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows
    from zephyr_ray.training.prompt_plan import PromptRankPlan


class OnPolicy(Optimisation):
    """`global_batch` counts prompts."""

    learning_rate: float = Field(1e-6, gt=0)
    completions: int = Field(8, ge=2)
    """Completions of each prompt, which are compared with each other (TRL's num_generations)."""
    temperature: float = Field(1.0, gt=0)
    """Of the draw of completions."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest completion, in tokens; a longer one is cut, and rewarded as it is."""
    num_iterations: int = Field(1, ge=1)
    """Optimizer steps on the same completions (mu of the GRPO paper)."""
    epsilon: float = Field(0.2, gt=0)
    """A completion counts no more where its probability has changed by more than this share since it was drawn. With
    num_iterations=1 it has not."""
    sampler: Literal["transformers", "vllm"] = compute("transformers")
    """What draws the completions. vllm: an engine on each worker's GPU, beside the training; transformers: its own
    `generate`, on a CPU too."""

    @model_validator(mode="after")
    def _vllm_has_a_gpu(self) -> OnPolicy:
        if self.sampler == "vllm" and not self.training.gpus_per_worker:
            raise ValueError(
                "sampler=vllm shares the GPU of each worker, and training.gpus_per_worker=0 has none; set "
                "sampler=transformers"
            )
        return self

    @model_validator(mode="after")
    def _as_many_prompts_for_each_worker(self) -> OnPolicy:
        for workers in range(self.training.fewest_workers, self.training.most_workers + 1):
            if self.global_batch % workers:
                raise ValueError(
                    f"training.workers={workers} for global_batch={self.global_batch}: each worker completes as many "
                    "prompts; set global_batch to a multiple of every number of workers"
                )
        return self

    @model_validator(mode="after")
    def _padded_layers_are_not_compiled(self) -> OnPolicy:
        if self.training.compile:
            raise ValueError("training.compile=true is for packed rows, and completions are padded; leave it out")
        return self


def options(section: OnPolicy) -> dict[str, Any]:
    """The section under TRL's names."""
    return {
        "num_generations": section.completions,
        "temperature": section.temperature,
        "max_completion_length": section.max_new_tokens,
        "num_iterations": section.num_iterations,
        "epsilon": section.epsilon,
        "use_vllm": section.sampler == "vllm",
        "vllm_mode": "colocate",
    }


def load_rows(section: OnPolicy, prompts: Artifact, reference_logps: Artifact | None) -> Rows:
    """The prompts."""
    from zephyr_ray.training.dataset import load_prompts

    return load_prompts(prompts)


def rank_plan(section: OnPolicy, rows: int, seed: int, rank: int, world_size: int) -> PromptRankPlan:
    """Which prompts this rank completes, and in how many micro-batches it learns from them."""
    from zephyr_ray.training.prompt_plan import PromptPlan, PromptRankPlan, largest_divisor

    plan = PromptPlan(rows, section.global_batch, section.epochs, seed, section.max_steps, section.num_iterations)
    of_rank = section.global_batch // world_size * section.completions
    micro_batch = largest_divisor(of_rank, section.training.micro_batch)
    return PromptRankPlan(plan, rank, world_size, micro_batch, section.completions)


_ONE_REWARD = "there is one reward, that of the judging section's judge"
_FIXED_REFERENCE = "the reference is the model that training starts from"
_ONE_DRAW = "completions are drawn for an optimizer step at a time: set {stage}.global_batch and {stage}.num_iterations"
_NO_SERVER = "vLLM runs on the workers' own GPUs: set {stage}.sampler"
_NO_TABLE = "TRL's tables of completions are not kept"
_OWN_ENGINE = "set {stage}.sampler"

PASSED = frozenset(
    {
        "cache_implementation",
        "disable_dropout",
        "ds3_gather_for_generation",
        "epsilon_high",
        "generation_kwargs",
        "mask_truncated_completions",
        "min_p",
        "pad_to_multiple_of",
        "repetition_penalty",
        "top_k",
        "top_p",
        "vllm_enable_sleep_mode",
        "vllm_gpu_memory_utilization",
        "vllm_max_model_length",
        "vllm_model_impl",
        "vllm_structured_outputs_regex",
        "vllm_tensor_parallel_size",
    }
)
REFUSED = {
    "beta": "set {stage}.beta",
    "epsilon": "set {stage}.epsilon",
    "num_generations": "set {stage}.completions",
    "num_generations_eval": "nothing is evaluated in training",
    "num_iterations": "set {stage}.num_iterations",
    "max_completion_length": "set {stage}.max_new_tokens",
    "temperature": "set {stage}.temperature",
    "chat_template_kwargs": "set chat.template",
    "shuffle_dataset": "the order of prompts follows from run.seed",
    "generation_batch_size": _ONE_DRAW,
    "steps_per_generation": _ONE_DRAW,
    "per_device_train_batch_size": "set {stage}.training.micro_batch",
    "use_cache": "completions are drawn with it",
    "auto_find_batch_size": "set {stage}.training.micro_batch",
    "reward_weights": _ONE_REWARD,
    "sync_ref_model": _FIXED_REFERENCE,
    "ref_model_mixup_alpha": _FIXED_REFERENCE,
    "ref_model_sync_steps": _FIXED_REFERENCE,
    "use_vllm": _OWN_ENGINE,
    "vllm_mode": _NO_SERVER,
    "vllm_server_base_url": _NO_SERVER,
    "vllm_server_host": _NO_SERVER,
    "vllm_server_port": _NO_SERVER,
    "vllm_server_timeout": _NO_SERVER,
    "vllm_group_port": _NO_SERVER,
    "use_transformers_continuous_batching": _OWN_ENGINE,
    "transformers_continuous_batching_config": _OWN_ENGINE,
    "use_transformers_paged": _OWN_ENGINE,
    "log_completions": _NO_TABLE,
    "log_multimodal": _NO_TABLE,
    "num_completions_to_print": _NO_TABLE,
    "log_unique_prompts": _NO_TABLE,
}
LACKS = frozenset({"activation_offloading", "dataset_num_proc", "pad_token", "padding_free"})
SHOWN = {
    "reward": "reward",
    "kl": "KL",
    "completions/mean_length": "tokens of a completion",
}
