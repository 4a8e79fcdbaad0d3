"""The main job on a Ray cluster that is already there: `ray start --head`, then `ray job submit`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import BIN, Head, head
from tests.integration.jobs import REPO, manifest

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def ray_head(tmp_path: Path) -> Iterator[Head]:
    with head(tmp_path) as started:
        yield started


def _submit(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Submits once the head's job agent, which starts after its web server, takes jobs."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=600)
        seen = done.stdout + done.stderr
        if "No available agent to submit job" not in seen or time.monotonic() > deadline:
            return done.returncode, seen
        time.sleep(2)


def test_the_demos_recipe_through_ray_job_submit(ray_head: Head, tmp_path: Path) -> None:
    root = tmp_path / "run"
    small = {
        "run.root": root,
        "tiny.dialogues": 256,
        "tiny.preference_prompts": 120,
        "preferences.train": "tiny",  # after two steps a model knows nothing that a judge could tell apart
        "tiny.held_out_prompts": 8,
        "sft.max_steps": 2,
        "dpo.max_steps": 2,
        "held_out.samples": 1,
        "held_out.max_new_tokens": 4,
    }
    job = ["python", "jobs/dpo.py", "--recipe", "recipes/tiny.yaml"]
    for name, value in small.items():
        job += ["--set", f"{name}={value}"]
    submit = [str(BIN / "ray"), "job", "submit", "--address", ray_head.api, "--working-dir", ".", "--", *job]
    status, seen = _submit(submit, ray_head.environment)
    assert status == 0, seen[-6000:]
    assert "held-out pass rate over 8 prompts" in seen
    assert (root / "dpo" / "checkpoint" / "model.safetensors").exists()
    assert manifest(root, "dpo")["trained"]["rows"] == manifest(root, "tokenized")["counts"]["out"]
