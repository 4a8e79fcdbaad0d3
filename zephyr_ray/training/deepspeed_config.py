"""DeepSpeed's configuration of a ZeRO stage. Batch sizes and clipping follow the trainer's."""

from typing import Any

SUB_GROUP_SIZE = 1_000_000_000
"""Weights that ZeRO-3 updates at once: a worker's shard is divided into groups of about so many (DeepSpeed's value)."""

GRADIENTS = {"grad_accum_dtype": "fp32"}
"""What gradients are summed in over a step's micro-batches. DeepSpeed does so in the weights' dtype unless told, and in
bfloat16 a sum loses what is less than 1/256 of it."""


def deepspeed_config(zero_stage: int, device: str) -> dict[str, Any] | None:
    """DeepSpeed's configuration, or None for stage 0 (plain data parallelism).

    Args:
        zero_stage: 1 shards the optimizer, 2 the gradients too, 3 the weights too (arXiv 1910.02054).
        device: cuda or cpu. On a CPU the optimizer is torch's own, so that nothing has to be compiled.
    """
    if zero_stage == 0:
        return None
    zero: dict[str, Any] = {
        "stage": zero_stage,
        "overlap_comm": device == "cuda",
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
    }
    if zero_stage == 3:
        zero |= {
            "sub_group_size": SUB_GROUP_SIZE,
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "data_types": GRADIENTS,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    if device == "cpu":
        config |= {"torch_adam": True, "zero_force_ds_cpu_optimizer": False}
    return config
