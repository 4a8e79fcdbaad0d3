"""Pass rates of the base, SFT and DPO checkpoints on held-out prompts of the embedded world.

The answers lie in data/, so that a rate can be looked into; the table has each model's pass rate and what DPO adds to
SFT, with 95 % intervals. All models answer the same prompts with the same random numbers.
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
class Sampling:
    """How answers are drawn."""

    samples: int
    """Answers to each prompt."""
    temperature: float
    max_new_tokens: int
    """Longest answer, in tokens."""
    seed: int


class Sampler:
    """Holds one checkpoint in an actor and answers batches of instructions."""

    def __init__(self, checkpoint: ModelSource, sampling: Sampling, progress: Any):
        import torch

        from zephyr_ray.chat_template import load_tokenizer
        from zephyr_ray.config.recipe import Chat, ModelSection
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
    """Answers with every checkpoint and writes `data/<stage>.parquet`; returns the manifest's part with the table.

    Args:
        checkpoints: By stage: sft and dpo, and others beside them.
        artifact: What is written.
        seed: Of the prompts and the random numbers.
        workers: Actors that sample.
        progress: Told of answers as they are drawn.
        prompts: How many of the held-out ones.
        samples: Answers to each.
        temperature: 0 takes the most likely token.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Prompts per generation call.
    """
    from zephyr_ray.embedded import world

    instructions = list(world.prompts("held_out", prompts, seed))
    sampling = Sampling(samples, temperature, max_new_tokens, seed)
    progress.set(0, total=len(instructions) * samples * len(checkpoints))
    filesystem = artifact.run.filesystem
    filesystem.create_dir(posixpath.join(artifact.path, "data"), recursive=True)
    passed: dict[str, np.ndarray] = {}
    files = []
    for name, checkpoint in checkpoints.items():
        table = _answered((checkpoint, sampling, progress), instructions, workers, batch_size)
        passed[name] = np.array(table["passed"].to_pylist())
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
        "lines": table_lines(rates, gain, count, samples),
    }


def _answered(held: tuple[Any, ...], instructions: Sequence[str], workers: int, batch_size: int) -> pa.Table:
    """Answers to all instructions by samplers of these arguments: instruction, answers, passed, in their order."""
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


def table_lines(rates: dict[str, Rate], gain: Rate, prompts: int, samples: int) -> list[str]:
    """The table a person sees."""
    lines = [
        f"held-out pass rate over {prompts} prompts x {samples} sampled answers",
        f"{'model':<12} {'pass rate':>10}   95 % interval",
    ]
    lines += [f"{name:<12} {rate.mean:>10.1%}   {rate.low:.1%} to {rate.high:.1%}" for name, rate in rates.items()]
    lines.append(f"{'dpo - sft':<12} {gain.mean:>+10.1%}   {gain.low:+.1%} to {gain.high:+.1%}")
    return lines
