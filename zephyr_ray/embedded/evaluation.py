"""Pass rates of the base, SFT and DPO checkpoints on held-out prompts of the embedded world.

The completions are written to data/ for inspection. The table has each model's pass rate and the gain of DPO over SFT,
with 95 % intervals. All models complete the same prompts with the same random numbers.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.embedded.held_out import Rate, difference, pass_rate
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelSource


@dataclass(frozen=True)
class GenerationOptions:
    """How completions are sampled."""

    samples: int
    """Completions of each prompt."""
    temperature: float
    max_new_tokens: int
    """Longest completion, in tokens."""
    seed: int


_BEFORE = ("base", "sft")
"""The models that learn nothing from preferences."""


class Sampler:
    """Actor that holds one checkpoint and completes batches of instructions."""

    def __init__(self, checkpoint: ModelSource, sampling: GenerationOptions, progress: Any):
        import torch

        from zephyr_ray.chat_template import load_tokenizer
        from zephyr_ray.config.model import Chat, ModelSection
        from zephyr_ray.training.model import load_model

        torch.set_num_threads(1)
        folder = checkpoint.local()
        self.sampling, self.progress = sampling, progress
        self.model = load_model(folder, ModelSection(), torch.float32)
        self.tokenizer = load_tokenizer(folder, Chat(template="model"))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        from zephyr_ray.embedded.held_out import sample
        from zephyr_ray.embedded.world import passes

        instructions, sampling = batch["instruction"].tolist(), self.sampling
        answers = sample(
            self.model,
            self.tokenizer,
            instructions,
            samples=sampling.samples,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            batch_size=len(instructions),
            seed=sampling.seed,
        )
        self.progress.add(len(instructions) * sampling.samples)
        passed = [[passes(text, answer) for answer in row] for text, row in zip(instructions, answers, strict=True)]
        return {"instruction": batch["instruction"], "answers": answers, "passed": passed}


def evaluate(
    checkpoints: Mapping[str, ModelSource],
    artifact: Artifact,
    *,
    seed: int,
    workers: int,
    progress: Any,
    prompts: int = 300,
    samples: int = 4,
    temperature: float = 1.0,
    max_new_tokens: int = 48,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Samples from every checkpoint into `data/<stage>.parquet`, a slash in its name written as a hyphen; returns the
    stage's part of the manifest.

    Args:
        checkpoints: The checkpoints by stage: sft, those that were trained from it, and possibly base.
        artifact: The output.
        seed: Seed of the prompts and the random numbers.
        workers: Number of sampling actors.
        progress: Gets the number of completions as they are sampled.
        prompts: Number of held-out prompts.
        samples: Completions of each prompt.
        temperature: 0 takes the most likely token.
        max_new_tokens: Longest completion, in tokens.
        batch_size: Prompts per generation call.
    """
    from zephyr_ray.embedded import world

    instructions = list(world.prompts("held_out", prompts, seed))
    sampling = GenerationOptions(samples, temperature, max_new_tokens, seed)
    progress.set(0, total=len(instructions) * samples * len(checkpoints))
    filesystem = artifact.run.filesystem
    filesystem.create_dir(posixpath.join(artifact.path, "data"), recursive=True)
    passed: dict[str, np.ndarray] = {}
    files = []
    for name, checkpoint in checkpoints.items():
        table = _sample_all((checkpoint, sampling, progress), instructions, workers, batch_size)
        passed[name] = np.array(table["passed"].to_pylist())
        files.append(f"data/{name.replace('/', '-')}.parquet")
        pq.write_table(table, posixpath.join(artifact.path, files[-1]), filesystem=filesystem)
    rates = {name: pass_rate(matrix) for name, matrix in passed.items()}
    gains = {name: difference(found, passed["sft"]) for name, found in passed.items() if name not in _BEFORE}
    count = len(instructions)
    return {
        "files": files,
        "counts": {"in": count, "out": count, "dropped": {}},
        "pass_rate": {name: rate._asdict() for name, rate in rates.items()},
        **{f"{name}_minus_sft": gain._asdict() for name, gain in gains.items()},
        "lines": table_lines(rates, gains, count, samples),
    }


def _sample_all(held: tuple[Any, ...], instructions: Sequence[str], workers: int, batch_size: int) -> pa.Table:
    """Columns instruction, answers and passed, in the instructions' order; `held` are arguments of `Sampler`."""
    import ray.data

    rows = (
        ray.data.from_items([{"instruction": text} for text in instructions])
        .repartition(target_num_rows_per_block=batch_size)
        .map_batches(
            Sampler,
            fn_constructor_args=held,
            batch_size=batch_size,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        .take_all()
    )
    by_prompt = {row["instruction"]: row for row in rows}
    ordered = [by_prompt[text] for text in instructions]
    return pa.table({key: [row[key] for row in ordered] for key in ("instruction", "answers", "passed")})


def table_lines(rates: dict[str, Rate], gains: dict[str, Rate], prompts: int, samples: int) -> list[str]:
    """The table of results as plain text."""
    lines = [
        f"held-out pass rate over {prompts} prompts x {samples} sampled answers",
        f"{'model':<17} {'pass rate':>10}   95 % interval",
    ]
    lines += [f"{name:<17} {rate.mean:>10.1%}   {rate.low:.1%} to {rate.high:.1%}" for name, rate in rates.items()]
    for name, gain in gains.items():
        lines.append(f"{name + ' - sft':<17} {gain.mean:>+10.1%}   {gain.low:+.1%} to {gain.high:+.1%}")
    return lines
