"""A model is scored by token ids of another one only if the ids mean the same to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from zephyr_ray.data.reference_logps import check_tokenizer
from zephyr_ray.embedded.model import Sizes, train_tokenizer
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelSource


def saved(folder: Path, vocabulary: int, *added: str) -> ModelSource:
    tokenizer = train_tokenizer(Sizes(vocab_size=vocabulary), seed=0)
    tokenizer.add_tokens([*added])
    tokenizer.save_pretrained(folder)
    return ModelSource(str(folder))


def test_a_tokenizer_with_the_same_tokens_and_more_is_one(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", 400)
    check_tokenizer("field", saved(tmp_path / "more", 400, "<more>"), one)
    with pytest.raises(UserError, match=r"^field: 1 of \d+ tokens of the model that DPO starts from are others"):
        check_tokenizer("field", one, saved(tmp_path / "fewer", 400, "<more>"))
    with pytest.raises(UserError, match=r"cannot be compared by token ids"):
        check_tokenizer("field", saved(tmp_path / "other", 300), one)
