"""DPO that has held-out pairs ends with a table of its implicit rewards on them, as plain transformers has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.integration.jobs import copy_run, manifest, run_job

STAGES = ("held_out_pairs", "held_out_tokenized", "held_out_reference", "held_out_policy", "evaluation/preferences")
pytestmark = pytest.mark.timeout(600)


def test_dpo_ends_with_a_table_of_held_out_pairs(
    undisturbed: Path, overrides: tuple[str, ...], base_model: Path, tmp_path: Path
) -> None:
    from zephyr_ray.embedded.world import completions

    trained = pq.read_table(undisturbed / "preferences" / "data")["prompt"].to_pylist()[0]
    rows = [json.dumps(row) for row in completions(30, 0, "held_out")]
    rows += [rows[0], "{broken", json.dumps({"prompt": trained, "chosen": "yes", "rejected": "no"})]
    file = tmp_path / "held_out.jsonl"
    file.write_text("\n".join(rows))
    root = copy_run(undisturbed, tmp_path / "run")

    assert "held" not in run_job("dpo", root, *overrides)
    seen = run_job("dpo", root, *overrides, f"preferences.held_out={file}")
    assert "dpo                    already done" in seen
    told = json.loads((root / "evaluation" / "preferences" / "summary.json").read_text())
    count = told["pairs"]
    assert f"33 rows in = {count} scored + {33 - count} dropped" in seen
    assert (
        told["counts"]["dropped"] | {"in_training": 1, "repeated": 1, "undecodable_line": 1}
        == told["counts"]["dropped"]
    )
    for name, measure in told["measures"].items():
        assert measure["low"] <= measure["value"] <= measure["high"], name

    scored = pq.read_table(root / "evaluation" / "preferences" / "data").to_pylist()
    by_hand = {
        whose: plain_logps(folder, root)
        for whose, folder in (("ref", base_model), ("policy", undisturbed / "dpo" / "checkpoint"))
    }
    assert [row["pair_id"] for row in scored] == sorted(by_hand["ref"])
    for row in scored:
        for whose, logps in by_hand.items():
            got = row[f"{whose}_chosen_logps"], row[f"{whose}_rejected_logps"]
            assert got == pytest.approx(logps[row["pair_id"]], abs=1e-3)
    rewards = {pair: np.array(by_hand["policy"][pair]) - by_hand["ref"][pair] for pair in by_hand["ref"]}
    margins = [0.1 * (chosen - rejected) for chosen, rejected in rewards.values()]
    assert told["measures"]["implicit_reward_margin"]["value"] == pytest.approx(np.mean(margins), abs=1e-4)
    accuracy = np.mean([margin > 0 for margin in margins])
    assert told["measures"]["implicit_reward_accuracy"]["value"] == pytest.approx(accuracy)
    assert f"implicit reward accuracy {accuracy:>15.1%}" in seen

    before = {stage: manifest(root, stage) for stage in STAGES}
    assert "done in" not in run_job("dpo", root, *overrides, f"preferences.held_out={file}")
    assert {stage: manifest(root, stage) for stage in STAGES} == before


@torch.no_grad()
def plain_logps(folder: Path, root: Path) -> dict[str, tuple[float, float]]:
    """Each held-out pair's two sums of log-probs, one sequence at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def logp(prompt: list[int], completion: list[int]) -> float:
        ids = torch.tensor([prompt + completion])
        per_token = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        return float(per_token[len(prompt) - 1 :].sum())

    rows = pq.read_table(root / "held_out_tokenized" / "data").to_pylist()
    return {
        row["pair_id"]: (logp(row["prompt_ids"], row["chosen_ids"]), logp(row["prompt_ids"], row["rejected_ids"]))
        for row in rows
    }
