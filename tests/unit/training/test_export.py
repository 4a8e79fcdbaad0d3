"""Writing a checkpoint to its place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.model import Chat
from zephyr_ray.training.export import write_checkpoint, write_generation_config


def test_ranks_that_write_nothing_leave_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 may merge and write for longer than a collective may take."""

    def waits() -> None:
        raise AssertionError("a rank waits for the others")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "barrier", waits)
    gathered: list[str] = []
    rank_1 = SimpleNamespace(save_model=gathered.append, is_world_process_zero=lambda: False)
    write_checkpoint(rank_1, SimpleNamespace(), str(tmp_path))
    assert gathered == [str(tmp_path / "export")]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("end", "stops_at"), [("</s>", 2), ("<|end|>", [2, 259])])
def test_generation_stops_at_the_token_that_ends_a_turn(
    byte_tokenizer: str, tmp_path: Path, end: str, stops_at: int | list[int]
) -> None:
    tokenizer = load_tokenizer(byte_tokenizer, Chat())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + '" + end + "\n' }}{% endfor %}"
    write_generation_config(str(tmp_path), tokenizer)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == stops_at
