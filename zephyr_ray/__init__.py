"""Aligned chat models without human labels, the Zephyr way (arXiv 2310.16944), on Ray.

What a program or a notebook of one's own calls is here, by the names of `__all__` (docs/api.md). A name is imported
when it is first used: `import zephyr_ray` itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.data.binarize import Rule, binarize
    from zephyr_ray.errors import UserError
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.training.logps import load_scorer
    from zephyr_ray.training.methods import load_recipe
    from zephyr_ray.zephyr import run_pipeline

__version__ = "0.1.0"
__all__ = ["Recipe", "Rule", "Run", "UserError", "binarize", "load_recipe", "load_scorer", "run_pipeline"]

_PLACES = {
    "Recipe": "config.recipe:Recipe",
    "Rule": "data.binarize:Rule",
    "Run": "pipeline.artifacts:Run",
    "UserError": "errors:UserError",
    "binarize": "data.binarize:binarize",
    "load_recipe": "training.methods:load_recipe",
    "load_scorer": "training.logps:load_scorer",
    "run_pipeline": "zephyr:run_pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
