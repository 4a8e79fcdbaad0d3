"""One round of dDPO against several on the embedded world, at equal pairs and at equal tokens -> held-out pass rates.

    python benchmarks/rounds.py --root runs/rounds-benchmark --seeds 0 1 2

An arm trains by `recipes/tiny.yaml` from the supervised model of its seed:

several     `--rounds` rounds of `--steps` optimizer steps, each round on its share of the prompts and answers of the
            newest model
one_pairs   one round on all prompts, of as many steps, so that it is trained on as many pairs
one_tokens  one round of as many steps as take the same number of tokens (prompt, chosen and rejected), since answers of
            later rounds have other lengths

A pass is a completion that is exactly the right answer, as asked. All models answer the same held-out prompts.
Intervals (95 %) are bootstraps over prompts, of all seeds together, and differences are paired by prompt. What is
trained already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zephyr_ray import chat_template
from zephyr_ray.config.model import Chat
from zephyr_ray.embedded import world
from zephyr_ray.embedded.held_out import sample
from zephyr_ray.evaluation.intervals import Estimate, bootstrap
from zephyr_ray.pipeline.stage import folder_of

REPO = Path(__file__).parents[1]
START = ("base", "dialogues", "tokenized_dialogues", "sft", "prompts")
PAIRS = ("candidates", "judgments", "preferences", "tokenized", "reference_logps")
BATCH = 32
"""Pairs of a step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder for the runs and results.json")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of each round")
    parser.add_argument("--reference", choices=("previous", "first"), default="previous")
    parser.add_argument("--prompts", type=int, default=300, help="held-out prompts")
    parser.add_argument("--samples", type=int, default=4, help="answers to each at temperature 1")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="of every arm's recipe")
    args = parser.parse_args()
    root = Path(args.root).absolute()
    prompts = list(world.prompts("held_out", args.prompts, 0))
    passed: dict[str, list[np.ndarray]] = {}
    trained: list[dict[str, Any]] = []
    for seed in args.seeds:
        models, tokens = arms(root, seed, args)
        trained.append({"seed": seed, "tokens": tokens})
        for name, folder in models.items():
            rates = pass_rates(folder, prompts, args.samples)
            passed.setdefault(name, []).append(rates)
            print(f"seed {seed}, {name}: {rates.mean():.1%}", flush=True)
    results = {"arguments": vars(args), "trained": trained, "pass_rate": compared(passed)}
    (root / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show(results)


def arms(root: Path, seed: int, args: argparse.Namespace) -> tuple[dict[str, Path], dict[str, int]]:
    """Trains the arms of a seed; returns the folders of their models, and how many tokens each was trained on."""
    several, by_pairs, by_tokens = (root / f"{arm}-{seed}" for arm in ("several", "one_pairs", "one_tokens"))
    fixed = [f"run.seed={seed}", f"dpo.global_batch={BATCH}", *args.set]
    loop = [f"rounds={args.rounds}", "each_round.prompts=share", f"each_round.reference={args.reference}"]
    last = folder_of(args.rounds, "dpo")
    train(several, last, [*fixed, *loop, f"dpo.max_steps={args.steps}"])
    copy(START, several, by_pairs)
    train(by_pairs, "dpo", [*fixed, f"dpo.max_steps={args.rounds * args.steps}"])
    each = tokens_of_a_pair(by_pairs)
    wanted = sum(
        BATCH * args.steps * tokens_of_a_pair(several, folder_of(number, "tokenized"))
        for number in range(1, args.rounds + 1)
    )
    steps = max(1, round(wanted / (BATCH * each)))
    copy((*START, *PAIRS), by_pairs, by_tokens)
    train(by_tokens, "dpo", [*fixed, f"dpo.max_steps={steps}"])
    models = {"sft": several / "sft"}
    models |= {f"round {number}": several / folder_of(number, "dpo") for number in range(1, args.rounds + 1)}
    models |= {"one_pairs": by_pairs / "dpo", "one_tokens": by_tokens / "dpo"}
    tokens = {
        "several": round(wanted),
        "one_pairs": round(BATCH * args.rounds * args.steps * each),
        "one_tokens": round(BATCH * steps * each),
    }
    return {name: folder / "checkpoint" for name, folder in models.items()}, tokens


def train(root: Path, until: str, settings: Sequence[str]) -> None:
    """Brings an arm up to date."""
    command = [sys.executable, "jobs/pipeline.py", "--recipe", "recipes/tiny.yaml", "--until", until]
    ties = "preferences.max_dropped=0.95"  # the better the model, the more prompts have answers that all score alike
    for setting in (f"run.root={root}", "dpo.training.zero_stage=0", ties, *settings):
        command += ["--set", setting]
    subprocess.run(command, cwd=REPO, check=True)


def copy(stages: Sequence[str], source: Path, target: Path) -> None:
    """Takes over stages that two arms have in common, unless they are there."""
    for stage in stages:
        if not (target / stage).exists():
            shutil.copytree(source / stage, target / stage, symlinks=True)


def tokens_of_a_pair(root: Path, stage: str = "tokenized") -> float:
    """The mean number of tokens of a pair: its prompt, once, and both completions."""
    stats = json.loads((root / stage / "manifest.json").read_text(encoding="utf-8"))["stats"]
    return sum(float(stats[f"{part}_tokens"]["mean"]) for part in ("prompt", "chosen", "rejected"))


def pass_rates(folder: Path, prompts: list[str], samples: int) -> np.ndarray:
    """The share of a model's answers to each prompt that pass, [prompts]."""
    import torch

    from zephyr_ray.config.model import ModelSection
    from zephyr_ray.training.model import load_model

    model = load_model(str(folder), ModelSection(), torch.float32)
    tokenizer = chat_template.load_tokenizer(str(folder), Chat(template="model"))
    answers = sample(
        model, tokenizer, prompts, samples=samples, temperature=1.0, max_new_tokens=48, batch_size=64, seed=0
    )
    rows = zip(prompts, answers, strict=True)
    return np.array([np.mean([world.passes(prompt, each) for each in given]) for prompt, given in rows])


def compared(passed: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Rates, and how far the last round is from the arms of one round, with intervals, and by seed."""
    rates = {name: np.stack(by_seed) for name, by_seed in passed.items()}  # [seeds, prompts]
    last = [name for name in rates if name.startswith("round ")][-1]
    rates |= {f"{last} - {arm}": rates[last] - rates[arm] for arm in ("one_pairs", "one_tokens")}
    seeds, prompts = rates[last].shape
    values = np.stack([each.ravel() for each in rates.values()], axis=1)
    estimates: list[Estimate] = bootstrap(values, np.tile(np.arange(prompts), seeds), resamples=10_000, seed=0)
    return {
        name: {**estimate._asdict(), "by_seed": each.mean(axis=1).tolist()}
        for (name, each), estimate in zip(rates.items(), estimates, strict=True)
    }


def show(results: dict[str, Any]) -> None:
    for each in results["trained"]:
        print(f"seed {each['seed']}: tokens trained on: {each['tokens']}")
    print("| model | pass rate | 95 % interval | by seed |\n| --- | --- | --- | --- |")
    for name, rate in results["pass_rate"].items():
        by_seed = ", ".join(f"{each:.1%}" for each in rate["by_seed"])
        print(f"| {name} | {rate['value']:.1%} | {rate['low']:.1%} to {rate['high']:.1%} | {by_seed} |")


if __name__ == "__main__":
    main()
