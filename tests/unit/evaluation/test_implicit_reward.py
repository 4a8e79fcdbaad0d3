"""Implicit rewards of held-out pairs: the paper's definition, ties, and what is written of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zephyr_ray.config import loader
from zephyr_ray.config.model import ModelSection
from zephyr_ray.config.training import Training
from zephyr_ray.data.held_out_pairs import check_prompts
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.implicit_reward import PairLogps, summarise, wins
from zephyr_ray.evaluation.preferences_stage import make_preference_evaluation
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import IMPLICIT_REWARDS, PREFERENCES
from zephyr_ray.training.arithmetic import scoring

# policy_chosen, policy_rejected, ref_chosen, ref_rejected
LOGPS = np.array(
    [
        [-10.0, -20.0, -12.0, -15.0],  # (2) - (-5) = 7, right under both
        [-30.0, -10.0, -40.0, -12.0],  # 10 - 2 = 8: right by its reward, and less likely than the rejected one
        [-5.0, -6.0, -5.0, -6.0],  # a tie of the rewards
        [-9.0, -9.0, -8.0, -8.0],  # a tie of everything
        [-7.0, -3.0, -5.0, -4.0],  # -2 - 1 = -3, wrong under both
    ]
)
PROMPTS = np.array(["a", "b", "b", "c", "d"])


def test_by_hand() -> None:
    logps = PairLogps(*LOGPS.T)
    assert logps.margins(0.5) == pytest.approx([3.5, 4.0, 0.0, 0.0, -1.5])
    summary = summarise(logps, PROMPTS, beta=0.5, seed=0)
    assert (summary.pairs, summary.prompts) == (5, 4)
    assert {name: each.value for name, each in summary.measures.items()} == pytest.approx(
        {
            "implicit_reward_accuracy": (1 + 1 + 0.5 + 0.5 + 0) / 5,
            "implicit_reward_margin": 6.0 / 5,
            "reference_logp_accuracy": (1 + 0 + 1 + 0.5 + 0) / 5,
            "policy_logp_accuracy": (1 + 0 + 1 + 0.5 + 0) / 5,
            "policy_minus_reference": 0.0,
        }
    )
    for each in summary.measures.values():
        assert each.low <= each.value <= each.high


def test_a_policy_that_is_its_reference_wins_half() -> None:
    same = np.random.default_rng(0).normal(size=(2, 20))
    summary = summarise(PairLogps(*same, *same), np.arange(20), beta=0.1, seed=0)
    assert summary.measures["implicit_reward_accuracy"] == (0.5, 0.5, 0.5)
    assert summary.measures["implicit_reward_margin"] == (0.0, 0.0, 0.0)
    assert wins(np.array([-1e-9, 0.0, 1e-9])).tolist() == [0.0, 0.5, 1.0]


def artifact_of(root: Path, stage: str, table: pa.Table, dropped: dict[str, int]) -> Artifact:
    """A finished artifact of two files."""
    artifact = Run(str(root)).artifact(stage)
    artifact.begin("f")
    (Path(artifact.path) / "data").mkdir()
    files = ["data/0.parquet", "data/1.parquet"]
    for name, part in zip(files, (table.slice(0, 2), table.slice(2)), strict=True):
        pq.write_table(part, Path(artifact.path) / name)
    counts = {"in": table.num_rows + sum(dropped.values()), "out": table.num_rows, "dropped": dropped}
    artifact.finish({"fingerprint": "f", "files": files, "counts": counts})
    return artifact


def pairs_of(root: Path, prompts: list[str]) -> Artifact:
    rows = [
        {"pair_id": f"id{n}", "prompt": [{"role": "user", "content": prompt}], "source": f"file:{n}"}
        for n, prompt in enumerate(prompts)
    ]
    return artifact_of(root, "held_out_pairs", pa.Table.from_pylist(rows, schema=PREFERENCES), {"in_training": 2})


def evaluate(root: Path, pairs: Artifact, logps: np.ndarray, ids: list[str]) -> dict[str, Any]:
    """The stage's manifest, of log-probs that lie in another order than the pairs."""

    def scored(stage: str, whose: str, columns: np.ndarray) -> Artifact:
        named = {f"{whose}_{side}_logps": pa.array(columns[:, at], pa.float32()) for at, side in enumerate(SIDES)}
        order = np.random.default_rng(len(stage)).permutation(len(ids))
        return artifact_of(root, stage, pa.table({"pair_id": ids, **named}).take(order), {})

    tokenized = artifact_of(root, "held_out_tokenized", pa.table({"pair_id": ids}), {"empty": 1})
    policy = scored("held_out_policy", "policy", logps[:, :2])
    reference = scored("held_out_reference", "ref", logps[:, 2:])
    out = Run(str(root)).artifact("evaluation/preferences")
    out.begin("f")
    return make_preference_evaluation(0.5, 0, pairs, tokenized, reference, policy, out)


SIDES = ("chosen", "rejected")


def test_the_stage_writes_rows_a_summary_and_a_table(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, ["a", "b", "lost when it was tokenized", "b", "c", "d"])
    ids = ["id0", "id1", "id3", "id4", "id5"]
    made = evaluate(tmp_path, pairs, LOGPS, ids)
    folder = tmp_path / "evaluation" / "preferences"
    assert sorted(made["files"]) == sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "unfinished.json"
    )
    rows = pq.read_table(folder / "data")
    assert rows.schema.equals(IMPLICIT_REWARDS)
    assert rows["pair_id"].to_pylist() == ids
    assert rows["source"].to_pylist() == ["file:0", "file:1", "file:3", "file:4", "file:5"]
    assert rows["margin"].to_pylist() == pytest.approx([3.5, 4.0, 0.0, 0.0, -1.5])
    told = json.loads((folder / "summary.json").read_text())
    assert (told["pairs"], told["prompts"], told["ties"], told["beta"]) == (5, 4, 2, 0.5)
    assert told["counts"] == {"in": 8, "added": 0, "out": 5, "dropped": {"empty": 1, "in_training": 2}}
    expected = summarise(PairLogps(*LOGPS.T), PROMPTS, beta=0.5, seed=0)
    assert told["measures"] == {name: each._asdict() for name, each in expected.measures.items()}
    assert "| implicit reward accuracy | 60.0% | " in (folder / "table.md").read_text()
    assert made["lines"][0] == "held-out preferences: 5 pairs over 4 prompts"
    assert made["lines"][-1] == "8 rows in = 5 scored + 3 dropped (1 empty, 2 in_training)"


def test_log_probs_that_are_not_finite_are_no_ties(tmp_path: Path) -> None:
    broken = LOGPS.copy()
    broken[3, 0] = np.nan
    with pytest.raises(UserError, match=r"1 of 5 held-out pairs have log-probs that are not finite \(first id3\)"):
        evaluate(
            tmp_path, pairs_of(tmp_path, ["a", "b", "b", "c", "d", "e"]), broken, ["id0", "id1", "id2", "id3", "id4"]
        )


def test_log_probs_of_other_pairs_are_refused(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, ["a", "b", "b", "c", "d", "e"])
    with pytest.raises(UserError, match="held_out_policy does not belong to"):
        evaluate(tmp_path, pairs, LOGPS, ["id0", "id1", "id2", "id3", "of another file"])


def test_one_prompt_is_too_few_and_known_before_training(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, ["a", "a", "a"])
    with pytest.raises(
        UserError, match=r"preferences\.held_out: the pairs that are left have 1 prompt, and an interval"
    ):
        check_prompts(pairs, ["data/0.parquet", "data/1.parquet", "report.html"])
    check_prompts(pairs_of(tmp_path / "more", ["a", "a", "b"]), ["data/0.parquet", "data/1.parquet"])


def test_whole_weights_and_plain_sums() -> None:
    recipe = loader.load(
        [], ["sft.base=/raw", "model.lora={r: 4, load_in_4bit: true}", "dpo.training.trl={ld_alpha: 0.5, optim: sgd}"]
    )
    trained = scoring(recipe.model, recipe.dpo.training)
    assert (trained.load_in_4bit, trained.ld_alpha) == (True, 0.5)
    assert trained.of_exported() == replace(trained, load_in_4bit=False, ld_alpha=None)
    plain = scoring(ModelSection(), Training())
    assert plain.of_exported() == plain
