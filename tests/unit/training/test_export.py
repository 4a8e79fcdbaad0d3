"""Writing a checkpoint to its place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from zephyr_ray.training.export import write_checkpoint


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
