"""SFT on the embedded world's noisy conversations: as they come, cleaned, and without noise -> pass rates.

    python benchmarks/noise.py --root runs/noise --seeds 0 1 2

`recipes/noisy.yaml` is trained three times a seed: `noisy` without the cleaning (exact repeats go all the same),
`cleaned` with it and with the benchmark's file, `clean` on the conversations into which nothing was planted. `exact` is
the share of answers to held-out prompts that are exactly right, `content` that of answers which hold the right one in
any case, with anything around it. Intervals (95 %) are bootstraps over prompts, of all seeds together. What is trained
already is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from zephyr_ray import chat_template
from zephyr_ray.config.model import Chat
from zephyr_ray.embedded import conversations, noise
from zephyr_ray.embedded.found_noise import found
from zephyr_ray.embedded.held_out import sample
from zephyr_ray.evaluation.intervals import Estimate, bootstrap
from zephyr_ray.pipeline.artifacts import Run

REPO = Path(__file__).parents[1]
ARMS = ("noisy", "cleaned", "clean")
LONGEST = 64
"""Tokens of an answer; a right one has some twenty, with a disclaimer some forty more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder for the runs and results.json")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--count", type=int, default=8_000, help="rows of the noisy data")
    parser.add_argument("--prompts", type=int, default=300, help="held-out prompts")
    parser.add_argument("--samples", type=int, default=4, help="answers to each at temperature 1")
    args = parser.parse_args()
    root = Path(args.root).absolute()
    root.mkdir(parents=True, exist_ok=True)
    benchmark = root / "benchmark.txt"
    noise.write_benchmark(benchmark)
    prompts = noise.held_out_prompts(args.prompts)
    passed: dict[float, dict[str, list[np.ndarray]]] = {at: {arm: [] for arm in args.arms} for at in (1.0, 0.0)}
    for seed in args.seeds:
        for arm in args.arms:
            run = root / f"{arm}-{seed}"
            train(arm, seed, args.count, run, benchmark)
            if arm == "cleaned":
                show_found(run, seed, args.count)
            for temperature, by_arm in passed.items():
                rates = evaluated(run, prompts, temperature, args.samples)
                by_arm[arm].append(rates)
                exact, content = rates.mean(axis=0)
                print(f"seed {seed}, {arm}, temperature {temperature:g}: {exact:.1%}, {content:.1%}", flush=True)
    results = {f"temperature {temperature:g}": compared(by_arm) for temperature, by_arm in passed.items()}
    (root / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show(results)


def train(arm: str, seed: int, count: int, root: Path, benchmark: Path) -> None:
    """Trains an arm, unless it is trained."""
    options = json.dumps({"count": count, "planted": arm != "clean"})
    settings = [f"run.root={root}", f"run.seed={seed}", f"dialogues.train.options={options}"]
    settings += (
        [f'dialogues.decontaminate=["{benchmark}"]']
        if arm == "cleaned"
        else ["dialogues.steps=[]", "dialogues.near_duplicates=null"]
    )
    command = [sys.executable, "jobs/sft.py", "--recipe", "recipes/noisy.yaml"]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, cwd=REPO, check=True)


def show_found(root: Path, seed: int, count: int) -> None:
    """Prints what the cleaning of a run found."""
    dialogues = Run(str(root)).artifact("dialogues")
    seen = found(noise.rows(seed, count), dialogues.table().to_pylist(), dialogues.table("dropped").to_pylist())
    counts = [*seen.planted.items(), ("false drops", seen.dropped), ("false changes", seen.changed)]
    print(f"seed {seed}: " + ", ".join(f"{name} {each.of_them} of {each.rows}" for name, each in counts))


def evaluated(root: Path, prompts: list[str], temperature: float, samples: int) -> np.ndarray:
    """The shares of the answers of a run's model that are exactly right and right in content, [prompts, 2]."""
    import torch

    from zephyr_ray.config.model import ModelSection
    from zephyr_ray.training.model import load_model

    folder = str(root / "sft" / "checkpoint")
    model = load_model(folder, ModelSection(), torch.float32)
    tokenizer = chat_template.load_tokenizer(folder, Chat(template="model"))
    answers = sample(
        model,
        tokenizer,
        prompts,
        samples=samples,
        temperature=temperature,
        max_new_tokens=LONGEST,
        batch_size=64,
        seed=0,
    )
    return np.array(
        [
            np.mean([(conversations.passes(prompt, each), has_content(prompt, each)) for each in given], axis=0)
            for prompt, given in zip(prompts, answers, strict=True)
        ]
    )


def has_content(prompt: str, completion: str) -> bool:
    """Whether a completion holds the right answer, in any case and with anything around it."""
    return conversations.answer(prompt).lower() in completion.lower()


def compared(arms: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Rates and the differences of neighbouring arms, with intervals, and by seed."""
    names, rates = list(arms), {arm: np.stack(by_seed) for arm, by_seed in arms.items()}  # [seeds, prompts, 2]
    rates |= {f"{after} - {before}": rates[after] - rates[before] for before, after in itertools.pairwise(names)}
    columns = {
        f"{measure}, {name}": by_seed[:, :, place]
        for place, measure in enumerate(("exact", "content"))
        for name, by_seed in rates.items()
    }
    seeds, prompts = next(iter(columns.values())).shape
    values = np.stack([column.ravel() for column in columns.values()], axis=1)
    estimates: list[Estimate] = bootstrap(values, np.tile(np.arange(prompts), seeds), resamples=10_000, seed=0)
    return {
        name: {**estimate._asdict(), "by_seed": column.mean(axis=1).tolist()}
        for (name, column), estimate in zip(columns.items(), estimates, strict=True)
    }


def show(results: dict[str, Any]) -> None:
    print("| sampled at | what | share | 95 % interval | by seed |\n| --- | --- | --- | --- | --- |")
    for sampled, rates in results.items():
        for name, rate in rates.items():
            by_seed = ", ".join(f"{each:.1%}" for each in rate["by_seed"])
            interval = f"{rate['low']:.1%} to {rate['high']:.1%}"
            print(f"| {sampled} | {name} | {rate['value']:.1%} | {interval} | {by_seed} |")


if __name__ == "__main__":
    main()
