"""Writing a checkpoint to its place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.model import Chat
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training import launch, worker
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


def test_a_manifest_names_the_base_model_of_an_adapter_that_training_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker sees it in the adapter's folder; the driver, where the folder may not be, gets it from there."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    output = Run(str(tmp_path / "run")).artifact("dpo")
    output.begin("fingerprint")
    trainer = SimpleNamespace(held_out=None, state=SimpleNamespace(log_history=[{"loss": 0.5}]))
    progress = SimpleNamespace(read=lambda: {"failure": None, "metrics": {}})
    job = SimpleNamespace(
        output=output,
        model=ModelSource(str(adapter)),
        progress=progress,
        training=SimpleNamespace(keep_checkpoints=True),
        stage="dpo",
    )
    worker._write_metrics(trainer, job, np.array([2, 2]), "weights")
    monkeypatch.setattr(launch, "fit", lambda job: None)
    made = launch.train(job)
    assert made["model"]["adapter_of"] == "owner/base"
    assert made["trained"] == {"rows": 2, "fewest_times": 2, "most_times": 2}
    assert made["weights"] == "weights"
