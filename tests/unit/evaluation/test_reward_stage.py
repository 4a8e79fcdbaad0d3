"""The evaluation of a reward model: its rows, its counts, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.reward_stage import make_reward_evaluation
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import HELD_OUT_REWARDS, PREFERENCES


def write(root: Path, stage: str, rows: list[dict], schema: pa.Schema) -> Artifact:
    artifact = Run(str(root)).artifact(stage)
    artifact.begin("x")
    (Path(artifact.path) / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), Path(artifact.path) / "data" / "0.parquet")
    artifact.finish({"fingerprint": "x", "files": ["data/0.parquet"]})
    return artifact


def say(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def evaluate(root: Path, rewards: dict[str, tuple[float | None, float | None]]) -> tuple[dict, Artifact]:
    """Of pairs with these rewards; the second and the third are of one prompt."""
    prompts = {"a": "1", "b": "2", "c": "2", "d": "3"}
    pairs = [
        {
            "pair_id": name,
            "prompt": say(prompts[name], "user"),
            "chosen": say("x"),
            "rejected": say("y"),
            "source": name,
        }
        for name in reversed(rewards)
    ]
    scored = [{"pair_id": name, "reward_chosen": won, "reward_rejected": lost} for name, (won, lost) in rewards.items()]
    artifact = Run(str(root)).artifact("evaluation/reward_model")
    artifact.begin("y")
    made = make_reward_evaluation(
        0,
        write(root, "held_out_pairs", pairs, PREFERENCES),
        write(root, "held_out_rewards/reward_model", scored, HELD_OUT_REWARDS),
        artifact,
    )
    return made, artifact


def test_rows_in_are_rows_scored_and_those_that_are_too_long(tmp_path: Path) -> None:
    made, artifact = evaluate(tmp_path, {"a": (2.0, 1.0), "b": (1.0, 3.0), "c": (1.0, 0.5), "d": (None, 1.0)})
    assert made["counts"] == {"in": 4, "out": 3, "dropped": {"unscored": 1}}
    assert made["measures"]["reward_accuracy"]["value"] == pytest.approx(2 / 3)
    assert made["measures"]["reward_margin"]["value"] == pytest.approx(-0.5 / 3)
    assert "1 pairs are longer than the model's positions and have no reward" in made["lines"]
    told = json.loads(Path(artifact.path, "summary.json").read_text())
    assert (told["pairs"], told["prompts"]) == (3, 2)
    assert told["calibration"] == made["calibration"]
    assert sum(each["pairs"] for each in told["calibration"]) == 3
    rows = pq.read_table(Path(artifact.path, "data")).to_pylist()
    assert [(row["pair_id"], row["source"], row["margin"]) for row in rows] == [
        ("a", "a", 1.0),
        ("b", "b", -2.0),
        ("c", "c", 0.5),
        ("d", "d", None),
    ]
    assert "| reward accuracy | 66.7% |" in Path(artifact.path, "table.md").read_text()


def test_one_prompt_has_no_interval(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the pairs that are left have 1 prompt"):
        evaluate(tmp_path, {"b": (2.0, 1.0), "c": (1.0, 3.0)})
