"""What is large and goes again lies where the recipe says, and does not stay when its process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zephyr_ray.config.model import Chat, ModelSection
from zephyr_ray.config.training import DPO, Training
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.scratch import check_scratch, own_folder
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.task import TrainJob


def job(scratch: Path | None, root: Path) -> TrainJob:
    section = DPO(training=Training(scratch=None if scratch is None else str(scratch)))
    run = Run(str(root))
    model, tokenized, output = ModelSource("model"), run.artifact("tokenized"), run.artifact("dpo")
    settings = TrainingSettings("dpo", section, ModelSection(), Chat(), 0)
    return TrainJob(settings, model, tokenized, None, output, progress=None)


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    mine = own_folder(job(tmp_path, tmp_path / "run"))
    assert tempfile.gettempdir() == str(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    prefix, _, _ = mine.rpartition("-")
    left = Path(f"{prefix}-{dead.pid}")
    (left / "checkpoint-2").mkdir(parents=True)
    other_run = own_folder(job(tmp_path, tmp_path / "another run"))
    running = Path(f"{prefix}-{os.getppid()}")
    running.mkdir()
    assert left.exists()
    assert own_folder(job(tmp_path, tmp_path / "run")) == mine
    assert {path.name for path in tmp_path.iterdir()} == {Path(mine).name, Path(other_run).name, running.name}


def test_by_itself_it_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("ZEPHYR_RAY_CACHE", str(tmp_path / "cache"))
    assert Path(own_folder(job(None, tmp_path / "run"))).parent == tmp_path / "cache" / "scratch"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^dpo\.training\.scratch: .*/file/scratch on .* cannot be written to"):
        check_scratch(job(tmp_path / "file" / "scratch", tmp_path))
    check_scratch(job(tmp_path / "made", tmp_path))
    assert not list((tmp_path / "made").iterdir())
