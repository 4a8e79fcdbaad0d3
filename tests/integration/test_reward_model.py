"""A reward model's job: a classifier that transformers loads as it is, its accuracy, and its agreement with people."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.integration.jobs import copy_run, manifest, run_job
from zephyr_ray.embedded.world import completions

pytestmark = pytest.mark.timeout(600)


@torch.no_grad()
def plain_reward(folder: Path, prompt: list[dict[str, str]], answer: str) -> float:
    """By no code of ours: the template's text of the conversation, and the classifier's output."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    whole = [*prompt, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    return float(model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0])


def test_a_reward_model_is_trained_measured_and_judges(
    prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    held_out, labelled = tmp_path / "held_out.jsonl", tmp_path / "labelled.jsonl"
    rows = list(completions(40, 0, "held_out"))
    held_out.write_text("\n".join(json.dumps(row) for row in rows))
    people = [{"prompt": "Say owl.", "answer_a": "owl", "answer_b": "no", "labels": ["a", "a", "b"]}] * 2
    people[1] = people[1] | {"prompt": "Say wren."}
    labelled.write_text("\n".join(json.dumps(row) for row in people))
    section = "{margin: 0.1, global_batch: 16, learning_rate: 1.0e-3, training: {workers: 2, zero_stage: 3}}"
    judge = "{type: reward_model, model: reward_model}"
    given = [
        *overrides,
        f"preferences.held_out={held_out}",
        f"reward_model={section}",
        f"evaluation.judge_agreement={{pairs: {labelled}, judge: {judge}}}",
    ]
    root = copy_run(prepared, tmp_path / "run")

    seen = run_job("reward_model", root, *given)
    assert "tokenized              already done" in seen
    assert "reward accuracy" in seen
    assert "expected calibration error" in seen
    folder = root / "reward_model" / "checkpoint"
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["MistralForSequenceClassification"]
    assert not (folder / "generation_config.json").exists()
    told = json.loads((root / "evaluation" / "reward_model" / "summary.json").read_text())
    assert sum(each["pairs"] for each in told["calibration"]) == told["pairs"] > 20
    pairs = {row["pair_id"]: row for row in pq.read_table(root / "held_out_pairs" / "data").to_pylist()}
    scored = pq.read_table(root / "evaluation" / "reward_model" / "data").to_pylist()
    assert [row["pair_id"] for row in scored] == sorted(pairs)
    for row in scored[:4]:
        pair = pairs[row["pair_id"]]
        for side in ("chosen", "rejected"):
            plain = plain_reward(folder, pair["prompt"], pair[side][-1]["content"])
            assert row[f"reward_{side}"] == pytest.approx(plain, abs=1e-4)
    accuracy = sum((row["margin"] > 0) + 0.5 * (row["margin"] == 0) for row in scored) / len(scored)
    assert told["measures"]["reward_accuracy"]["value"] == pytest.approx(accuracy)

    run_job("pipeline", root, *given, options=("--until", "evaluation/judge_agreement"))
    agreed = json.loads((root / "evaluation" / "judge_agreement" / "summary.json").read_text())
    assert agreed["people"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert agreed["judge"]["parse_rate"] == 1
    judged = manifest(root, "evaluation/labelled_pairs_judgments")
    assert "reward_model" in judged["inputs"]
    said = run_job("pipeline", root, *given, f"model.path={folder}", expect=2)
    assert said.splitlines()[-1].startswith(f"error: model.path={folder} is a sequence classifier")
