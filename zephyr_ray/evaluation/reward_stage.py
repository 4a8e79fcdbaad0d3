"""Evaluation stage: accuracy and calibration of a reward model on held-out pairs.

It reads the pairs' rewards, and writes them, ordered by the pair's id, to data/pairs.parquet, and the results to
summary.json and table.md.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zephyr_ray.data.held_out_pairs import too_few_prompts
from zephyr_ray.evaluation.intervals import LEVEL, RESAMPLES
from zephyr_ray.evaluation.preferences_stage import pair_sources
from zephyr_ray.evaluation.reward_accuracy import Summary, markdown, summarise, table_lines
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import Reason


def stage(name: str, seed: int, pairs: Stage, rewards: Stage) -> Stage:
    """The stage `evaluation/NAME`.

    Args:
        name: Of the reward model.
        seed: Of the intervals' resampling.
        pairs: The held-out pairs.
        rewards: Theirs.
    """

    def make(context: StageContext) -> Manifest:
        return make_reward_evaluation(seed, context.input(pairs.kind), context.input(rewards.kind), context.artifact)

    return Stage(
        f"evaluation/{name}",
        "pairs",
        {"seed": seed},
        make,
        inputs={each.kind: each for each in (pairs, rewards)},
        is_evaluation=True,
    )


def make_reward_evaluation(seed: int, pairs: Artifact, rewards: Artifact, artifact: Artifact) -> Manifest:
    """Writes rows and summary; returns the stage's part of the manifest, with the table.

    Raises:
        UserError: There are fewer than two prompts with rewards.
    """
    rows = _rows(pairs, rewards)
    scored = rows.filter(pc.is_valid(rows["margin"]))
    prompts = scored["prompt_id"].to_numpy()
    if len(set(prompts)) < 2:
        raise too_few_prompts(len(set(prompts)))
    filesystem = artifact.run.filesystem
    filesystem.create_dir(posixpath.join(artifact.path, "data"), recursive=True)
    pq.write_table(rows, posixpath.join(artifact.path, "data/pairs.parquet"), filesystem=filesystem, compression="zstd")
    summary = summarise(scored["margin"].to_numpy().astype(np.float64), prompts, seed)
    results = _as_json(summary, seed)
    artifact.write_text("summary.json", json.dumps(results, indent=2) + "\n")
    artifact.write_text("table.md", markdown(summary))
    without = rows.num_rows - scored.num_rows
    dropped = {str(Reason.UNSCORED): without} if without else {}
    longer = [f"{without:,} pairs are longer than the model's positions and have no reward"] if without else []
    return {
        "files": ["data/pairs.parquet", "summary.json", "table.md"],
        "counts": {"in": rows.num_rows, "out": scored.num_rows, "dropped": dropped},
        "measures": results["measures"],
        "calibration": results["calibration"],
        "lines": [*table_lines(summary), *longer],
    }


def _rows(pairs: Artifact, rewards: Artifact) -> pa.Table:
    """pair_id, prompt_id, source, both rewards and `margin`, null where one of them is; ordered by the pair's id."""
    known, scored = (table.sort_by("pair_id").combine_chunks() for table in (pair_sources(pairs), rewards.table()))
    margin = pc.subtract(scored["reward_chosen"], scored["reward_rejected"])
    columns = {name: scored[name] for name in ("reward_chosen", "reward_rejected")}
    return pa.table({name: known[name] for name in ("pair_id", "prompt_id", "source")} | columns | {"margin": margin})


def _as_json(summary: Summary, seed: int) -> dict[str, object]:
    return {
        "pairs": summary.pairs,
        "prompts": summary.prompts,
        "measures": {name: estimate._asdict() for name, estimate in summary.measures.items()},
        "calibration": [asdict(each) for each in summary.calibration],
        "expected_calibration_error": summary.calibration_error,
        "interval": {
            "level": LEVEL,
            "method": "percentile bootstrap over prompts",
            "resamples": RESAMPLES,
            "seed": seed,
        },
    }
