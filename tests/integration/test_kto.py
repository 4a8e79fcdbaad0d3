"""KTO's job on what people say on the chat page and in files, from rows to a checkpoint, on two workers."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.integration.jobs import manifest, run_job
from zephyr_ray.serving.gateway.feedback import Feedback, parse

pytestmark = pytest.mark.timeout(600)


def said(number: int, kind: str, choice: Any, prompt: list[dict[str, str]], *answers: str) -> Any:
    """A person's choice, as the page sends it."""
    shown = [{"model": "m", "content": content} for content in answers]
    body = {"id": str(uuid.UUID(int=number)), "kind": kind, "messages": prompt, "answers": shown, "choice": choice}
    return parse(json.dumps(body).encode())


def test_thumbs_votes_and_labels_make_a_model(base_model: Path, tmp_path: Path) -> None:
    feedback, labels, root = Feedback(str(tmp_path / "feedback")), tmp_path / "labels.jsonl", tmp_path / "run"
    questions = [[{"role": "user", "content": f"Which bird is number {number}?"}] for number in range(20)]
    for number, prompt in enumerate(questions):
        feedback.store(said(number, "thumb", "up" if number % 3 else "down", prompt, f"answer {number}"))
    feedback.store(said(100, "compare", 0, questions[0], "owl", "wren"))
    feedback.store(said(101, "compare", "tie", questions[1], "owl", "wren"))
    rows = [{"prompt": prompt, "completion": f"no {at}", "label": False} for at, prompt in enumerate(questions[:12])]
    labels.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], {"prompt": "Q", "completion": "A"}]))
    section = "{global_batch: 12, epochs: 2, learning_rate: 1.0e-3, training: {workers: 2, logging_steps: 1}}"
    given = [f"model.path={base_model}", f"preferences.train=[{tmp_path}/feedback, {labels}]", f"kto={section}"]

    seen = run_job("kto", root, *given)
    counts = manifest(root, "unpaired")["counts"]
    assert counts == {"in": 36, "added": 1, "out": 34, "dropped": {"tie": 1, "repeated": 1, "unknown_layout": 1}}
    assert manifest(root, "tokenized_unpaired")["noted"] == {"desirable": 14, "undesirable": 20}
    assert "desirable: 14" in seen
    scored = pq.read_table(root / "unpaired_reference_logps" / "data")
    assert [len(each) for each in scored["ref_kl_logps"].to_pylist()] == [2] * 34  # an epoch each
    steps = [json.loads(line) for line in (root / "kto" / "metrics.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if "loss" in step]
    assert losses[0] == pytest.approx(0.5, abs=1e-5)  # policy and reference are one model, and so for other answers
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    made = manifest(root, "kto")
    assert made["trained"]["rows"] == 34
    assert (root / "kto" / made["checkpoint"] / "model.safetensors").exists()
