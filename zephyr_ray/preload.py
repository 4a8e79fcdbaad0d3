"""What the workers of a command import, for a server that loads it once (`forkserver`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_WITH_A_MODEL = frozenset({"base", "sft", "reference_logps", "dpo", "held_out"})
_ROWS = ("numpy", "pyarrow.parquet", "pyarrow.fs", "pandas")
_MODELS = ("torch", "transformers", "datasets", "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer", "deepspeed")


class Preload(NamedTuple):
    """Modules in the order in which they are loaded."""

    libraries: Sequence[str]
    on_ray: Sequence[str]
    """Those that import Ray."""


def of_stages(stages: Sequence[str]) -> Preload:
    """What the workers of these stages import."""
    if _WITH_A_MODEL.isdisjoint(stages):
        return Preload((*_ROWS, "transformers"), ("ray.data",))
    return Preload((*_ROWS, *_MODELS), ("ray.data", "ray.train", "zephyr_ray.training.loop"))
