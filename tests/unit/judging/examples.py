"""Rows, questions and recipes that the tests of this folder share."""

from __future__ import annotations

from typing import Any

from zephyr_ray.config.feedback import LanguageModelJudges
from zephyr_ray.judging.prompt import Question


def row(*answers: str, prompt_id: str = "p") -> dict[str, Any]:
    """A row of candidates with these answers to "Name a bird"."""
    completions = [
        {"model": f"m{i}", "content": text, "finish_reason": "stop", "tokens": 3, "seed": i, "principle": None}
        for i, text in enumerate(answers)
    ]
    messages = [{"role": "user", "content": "Name a bird"}]
    return {"prompt_id": prompt_id, "messages": messages, "completions": completions, "error": None}


def judging(*names: str, **fields: Any) -> LanguageModelJudges:
    models = [
        {"type": "endpoint", "name": name, "base_url": "http://host/v1", "model": "m"} for name in names or ("j",)
    ]
    return LanguageModelJudges.model_validate({"type": "language_models", "models": models, **fields})


def question(aspect: str = "overall", order: tuple[int, ...] = (0,), **fields: Any) -> Question:
    return Question(**{"judge": "j", "repeat": 0, "is_reversed": False, "aspect": aspect, "order": order, **fields})
