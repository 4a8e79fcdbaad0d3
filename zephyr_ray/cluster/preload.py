"""What the workers of a command import, for a server that loads it once (`fork_server`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preload:
    """Modules in the order in which they are loaded."""

    libraries: tuple[str, ...]
    on_ray: tuple[str, ...]
    """Those that import Ray."""

    def __add__(self, other: Preload) -> Preload:
        """Each module of both, once."""
        return Preload(
            tuple(dict.fromkeys(self.libraries + other.libraries)), tuple(dict.fromkeys(self.on_ray + other.on_ray))
        )


ROWS = Preload(("numpy", "pyarrow.parquet", "pandas", "transformers"), ("ray.data",))
TRAINING = Preload(
    ("torch", "transformers", "datasets", "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer", "deepspeed"),
    ("ray.train", "zephyr_ray.training.worker", "zephyr_ray.training.methods.dpo", "zephyr_ray.training.methods.sft"),
)
ENGINES = Preload(
    ("numpy", "torch", "transformers", "vllm", "vllm.config", "vllm.engine.arg_utils"),
    ("vllm.entrypoints.openai.api_server", "ray.serve.llm", "zephyr_ray.serving.engine"),
)
SERVING = ENGINES + Preload((), ("zephyr_ray.serving.chat_replica", "zephyr_ray.serving.gateway.app"))
