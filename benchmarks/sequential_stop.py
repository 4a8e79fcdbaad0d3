"""How often stopping early is wrong, and what it saves, by two rules -> a table.

    python benchmarks/sequential_stop.py
    python benchmarks/sequential_stop.py --runs 2000 --prompts 800 --json stop.json

Each run draws outcomes of A against B (a fifth of them ties) and looks after every block of 20. `at any time` is the
interval of `evaluation.sequential`; `bootstrap` is the 95 % percentile bootstrap, meant for one look. Both stop when
their interval excludes 50 %. At a win rate of 50 % every decision is wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zephyr_ray.evaluation.intervals import LEVEL
from zephyr_ray.evaluation.sequential import BLOCK, decide

WIN_RATES = (0.5, 0.55, 0.6, 0.7)
TIES = 0.2
RESAMPLES = 500


class Stops(NamedTuple):
    """What a rule did in many runs."""

    rule: str
    win_rate: float
    decided: float
    """Share of the runs."""
    wrong: float
    """Share of the runs in which the worse one, or at 50 % any one, was said to be ahead."""
    prompts: float
    """Mean number of prompts that were judged."""
    saved: float
    """Mean share of the prompts that were not judged."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--json", metavar="OUT", help="write the rows here")
    args = parser.parse_args()
    rows = [stops(rule, rate, args.runs, args.prompts) for rate in WIN_RATES for rule in RULES]
    print(f"{args.runs} runs of at most {args.prompts} prompts, a look after every {BLOCK}")
    print("| win rate | rule | decided | wrong | mean prompts | saved |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row.win_rate:.0%} | {row.rule} | {row.decided:.1%} | {row.wrong:.1%} | {row.prompts:.0f} "
            f"| {row.saved:.0%} |"
        )
    if args.json:
        Path(args.json).write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n", encoding="utf-8")


def stops(rule: str, win_rate: float, runs: int, prompts: int, seed: int = 0) -> Stops:
    """A rule in many runs of at most so many prompts."""
    rng = np.random.default_rng(seed)
    found = [RULES[rule](outcomes(win_rate, prompts, rng), rng) for _ in range(runs)]
    decided = sum(winner is not None for winner, _ in found)
    wrong = sum(winner == "b" or (winner == "a" and win_rate == 0.5) for winner, _ in found)
    judged = sum(after for _, after in found) / runs
    return Stops(rule, win_rate, decided / runs, wrong / runs, judged, 1 - judged / prompts)


def outcomes(win_rate: float, prompts: int, rng: np.random.Generator) -> np.ndarray:
    """[prompts], each 0, 0.5 or 1, with the win rate as their mean."""
    wins = win_rate - TIES / 2
    return rng.choice([1.0, 0.5, 0.0], size=prompts, p=[wins, TIES, 1 - TIES - wins])


def _at_any_time(drawn: np.ndarray, rng: np.random.Generator) -> tuple[str | None, int]:
    decision = decide(drawn)
    return decision.winner, decision.after


def _bootstrap(drawn: np.ndarray, rng: np.random.Generator) -> tuple[str | None, int]:
    """Resamples of three values are multinomial counts of them."""
    values, tail = np.array([1.0, 0.5, 0.0]), 100 * (1 - LEVEL) / 2
    for look in range(BLOCK, len(drawn) + 1, BLOCK):
        counts = (drawn[:look, None] == values).sum(axis=0)
        means = rng.multinomial(look, counts / look, size=RESAMPLES) @ values / look
        low, high = np.percentile(means, [tail, 100 - tail])
        if low > 0.5 or high < 0.5:
            return ("a" if low > 0.5 else "b"), look
    return None, len(drawn)


RULES: dict[str, Callable[[np.ndarray, np.random.Generator], tuple[str | None, int]]] = {
    "at any time": _at_any_time,
    "bootstrap": _bootstrap,
}

if __name__ == "__main__":
    main()
