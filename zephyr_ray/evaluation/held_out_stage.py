"""Pass rates of the base, SFT and DPO checkpoints on held-out prompts of the embedded world.

The answers lie in data/, so that a rate can be looked into; the table has each model's pass rate and what DPO adds to
SFT, with 95 % intervals. All models answer the same prompts with the same random numbers.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.artifacts import Artifact
from zephyr_ray.demands import Demand
from zephyr_ray.evaluation.held_out import Rate, difference, pass_rate
from zephyr_ray.models import ModelSource, stage_source
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.preload import ROWS, TRAINING
from zephyr_ray.recipe import Recipe
from zephyr_ray.section import semantic


def stage(recipe: Recipe, checkpoints: Sequence[Stage]) -> Stage:
    """The stage `held_out`, of these checkpoints."""
    section = recipe.held_out
    assert section is not None

    def make(context: StageContext) -> Manifest:
        found = {each.kind: stage_source(context.input(each.kind)) for each in checkpoints}
        return make_held_out(recipe, found, context.artifact, progress=context.progress)

    return Stage(
        "held_out",
        "answers",
        {"held_out": semantic(section), "tiny": semantic(recipe.tiny), "seed": recipe.run.seed},
        make,
        inputs={each.kind: each for each in checkpoints},
        resources=(Demand("held_out", {"CPU": 1}, section.workers),),
        preload=ROWS + TRAINING,
        is_evaluation=True,
    )


class Sampler:
    """Holds one checkpoint in an actor and answers batches of instructions."""

    def __init__(self, recipe: Recipe, checkpoint: ModelSource, progress: Any):
        import torch

        from zephyr_ray.chat_template import load_tokenizer
        from zephyr_ray.training.model import load_model

        torch.set_num_threads(1)
        folder = checkpoint.local()
        self.recipe, self.progress = recipe, progress
        self.model = load_model(folder, recipe.model, torch.float32)
        self.tokenizer = load_tokenizer(folder, recipe.chat)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        from zephyr_ray.evaluation.held_out import sample
        from zephyr_ray.tiny.world import passes

        section = self.recipe.held_out
        assert section is not None
        instructions = batch["instruction"].tolist()
        answers = sample(
            self.model,
            self.tokenizer,
            instructions,
            samples=section.samples,
            temperature=section.temperature,
            max_new_tokens=section.max_new_tokens,
            batch_size=len(instructions),
            seed=self.recipe.run.seed,
        )
        self.progress.add(len(instructions) * section.samples)
        passed = [[passes(text, answer) for answer in row] for text, row in zip(instructions, answers, strict=True)]
        return {"instruction": batch["instruction"], "answers": answers, "passed": passed}


def make_held_out(
    recipe: Recipe, checkpoints: dict[str, ModelSource], artifact: Artifact, *, progress: Any
) -> dict[str, Any]:
    """Answers with every checkpoint and writes `data/<stage>.parquet`; returns the manifest's part with the table."""
    import ray.data

    from zephyr_ray.tiny.world import prompts

    section = recipe.held_out
    assert section is not None
    instructions = list(prompts("held_out", recipe.tiny.held_out_prompts, recipe.run.seed))
    progress.set(0, total=len(instructions) * section.samples * len(checkpoints))
    filesystem = artifact.run.filesystem
    filesystem.create_dir(posixpath.join(artifact.path, "data"), recursive=True)
    passed: dict[str, np.ndarray] = {}
    files = []
    for name, checkpoint in checkpoints.items():
        rows = (
            ray.data.from_items([{"instruction": text} for text in instructions])
            .repartition(target_num_rows_per_block=section.batch_size)
            .map_batches(
                Sampler,
                fn_constructor_args=(recipe, checkpoint, progress),
                batch_size=section.batch_size,
                compute=ray.data.ActorPoolStrategy(size=section.workers),
                num_cpus=1,
            )
            .take_all()
        )
        by_prompt = {row["instruction"]: row for row in rows}
        ordered = [by_prompt[text] for text in instructions]
        passed[name] = np.array([row["passed"] for row in ordered])
        table = pa.table({key: [row[key] for row in ordered] for key in ("instruction", "answers", "passed")})
        files.append(f"data/{name}.parquet")
        pq.write_table(table, posixpath.join(artifact.path, files[-1]), filesystem=filesystem)
    rates = {name: pass_rate(matrix) for name, matrix in passed.items()}
    gain = difference(passed["dpo"], passed["sft"])
    count = len(instructions)
    return {
        "files": files,
        "counts": {"in": count, "out": count, "dropped": {}},
        "pass_rate": {name: rate._asdict() for name, rate in rates.items()},
        "dpo_minus_sft": gain._asdict(),
        "lines": table_lines(rates, gain, count, section.samples),
    }


def table_lines(rates: dict[str, Rate], gain: Rate, prompts: int, samples: int) -> list[str]:
    """The table a person sees."""
    lines = [
        f"held-out pass rate over {prompts} prompts x {samples} sampled answers",
        f"{'model':<12} {'pass rate':>10}   95 % interval",
    ]
    lines += [f"{name:<12} {rate.mean:>10.1%}   {rate.low:.1%} to {rate.high:.1%}" for name, rate in rates.items()]
    lines.append(f"{'dpo - sft':<12} {gain.mean:>+10.1%}   {gain.low:+.1%} to {gain.high:+.1%}")
    return lines
