"""SFT on the embedded world's noisy conversations: as they come, cleaned, and without noise -> pass rates.

    python benchmarks/noise.py --root runs/noise --seeds 0 1 2

`recipes/noisy.yaml` is trained three times a seed: `noisy` without the cleaning (exact repeats go all the same),
`cleaned` with it and with the benchmark's file, `clean` on the conversations into which nothing was planted. A model
passes a prompt if it answers exactly right. `held out` are prompts that occur nowhere else, `benchmark` those that some
noisy rows hold. Intervals (95 %) are bootstraps over prompts, of the three seeds together; what is trained already is
not trained again.
"""

from __future__ import annotations

import argparse
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
SETS = ("held out", "benchmark")
LONGEST = 48
"""Tokens of an answer; a right one has about 25."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder for the runs and results.json")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=8_000, help="rows of the noisy data")
    parser.add_argument("--prompts", type=int, default=300, help="held-out prompts")
    parser.add_argument("--samples", type=int, default=4, help="answers to each at temperature 1")
    args = parser.parse_args()
    root = Path(args.root).absolute()
    root.mkdir(parents=True, exist_ok=True)
    benchmark = root / "benchmark.txt"
    noise.write_benchmark(benchmark)
    prompts = {"held out": noise.held_out_prompts(args.prompts), "benchmark": noise.benchmark_prompts()}
    passed: dict[str, dict[float, dict[str, list[np.ndarray]]]] = {
        name: {temperature: {arm: [] for arm in ARMS} for temperature in (1.0, 0.0)} for name in SETS
    }
    for seed in args.seeds:
        for arm in ARMS:
            run = root / f"{arm}-{seed}"
            train(arm, seed, args.count, run, benchmark)
            if arm == "cleaned":
                show_found(run, seed, args.count)
            for name in SETS:
                for temperature in (1.0, 0.0):
                    rates = evaluated(run, prompts[name], temperature, args.samples)
                    passed[name][temperature][arm].append(rates)
                    print(f"seed {seed}, {arm}, {name}, temperature {temperature:g}: {rates.mean():.1%}", flush=True)
    results = {f"{name}, temperature {at:g}": compared(arms) for name, by in passed.items() for at, arms in by.items()}
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
    """The share of right answers to each prompt of a run's model, [prompts]."""
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
    pairs = zip(prompts, answers, strict=True)
    return np.array([np.mean([conversations.passes(prompt, each) for each in given]) for prompt, given in pairs])


def compared(arms: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Pass rates and their differences, with intervals, and by seed."""
    noisy, cleaned, clean = (np.concatenate(arms[arm]) for arm in ARMS)
    columns = np.stack([noisy, cleaned, clean, cleaned - noisy, clean - cleaned], axis=1)
    prompt = np.tile(np.arange(len(arms["noisy"][0])), len(arms["noisy"]))
    names = (*ARMS, "cleaned - noisy", "clean - cleaned")
    found: list[Estimate] = bootstrap(columns, prompt, resamples=10_000, seed=0)
    by_seed = columns.reshape(len(arms["noisy"]), -1, len(names)).mean(axis=1)
    return {name: {**found[place]._asdict(), "by_seed": by_seed[:, place].tolist()} for place, name in enumerate(names)}


def show(results: dict[str, Any]) -> None:
    print("| prompts | what | pass rate | 95 % interval | by seed |\n| --- | --- | --- | --- | --- |")
    for prompts, rates in results.items():
        for name, rate in rates.items():
            by_seed = ", ".join(f"{each:.1%}" for each in rate["by_seed"])
            interval = f"{rate['low']:.1%} to {rate['high']:.1%}"
            print(f"| {prompts} | {name} | {rate['value']:.1%} | {interval} | {by_seed} |")


if __name__ == "__main__":
    main()
