"""The best of several answers to each prompt, as dialogues to learn: rejection sampling (best of n).

Llama 2 (arXiv 2307.09288, section 3.2.3) samples K answers, keeps the one that its reward model rates best, and trains
on it as on a demonstration. Here any judge's ratings do. What more answers would buy is counted on the way, without
bias and without sampling again: the mean score of the best of n of the K answers, and pass@n (arXiv 2107.03374, eq. 1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from zephyr_ray.config.data import BestAnswers
from zephyr_ray.config.section import semantic
from zephyr_ray.data.binarize import Rule, ScoredCompletion, best_of, score_completions
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import dropped_row, mixed_schema
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import DIALOGUES, Dropped, Reason

_BATCH_ROWS = 512


@dataclass
class Gain:
    """Sums over prompts, by the number of answers n: of the best of n's score, and of pass@n."""

    best: dict[int, float] = field(default_factory=dict)
    passed: dict[int, float] = field(default_factory=dict)
    prompts: dict[int, float] = field(default_factory=dict)
    """With at least n answers that are rated and whole."""

    def add(self, other: Gain) -> None:
        for mine, theirs in ((self.best, other.best), (self.passed, other.passed), (self.prompts, other.prompts)):
            for n, value in theirs.items():
                mine[n] = mine.get(n, 0) + value

    def count(self, scores: Sequence[float], pass_score: float | None) -> None:
        """Adds a prompt with the scores of its answers."""
        right = sum(score >= pass_score for score in scores) if pass_score is not None else 0
        for n in range(1, len(scores) + 1):
            found = Gain({n: mean_best(scores, n)}, {n: pass_at(len(scores), right, n)}, {n: 1})
            self.add(found)

    def result(self, has_pass: bool) -> list[dict[str, float]]:
        """For each n: the mean score of the best of n, and pass@n where a score says which answers are right."""
        return [
            {"n": n, "prompts": count, "best": self.best[n] / count}
            | ({"pass": self.passed[n] / count} if has_pass else {})
            for n, count in sorted(self.prompts.items())
        ]


def mean_best(scores: Sequence[float], n: int) -> float:
    """The mean, over all draws of n of the scores, of the largest: sum of s_(i) C(i - 1, n - 1) / C(K, n)."""
    ordered = sorted(scores)
    return sum(score * math.comb(rank, n - 1) for rank, score in enumerate(ordered)) / math.comb(len(ordered), n)


def pass_at(answers: int, right: int, n: int) -> float:
    """The share of draws of n answers that hold a right one: 1 - C(K - c, n) / C(K, n) (arXiv 2107.03374, eq. 1)."""
    return 1 - math.comb(answers - right, n) / math.comb(answers, n)


def stage(section: BestAnswers, score: str, seed: int, judgments: Stage) -> Stage:
    """The stage `best_answers`.

    Args:
        section: Which answers are good enough.
        score: What ranks them (`preferences.score`).
        seed: Of the draw among several best ones.
        judgments: The answers with their ratings.
    """

    def make(context: StageContext) -> Manifest:
        report, gain = make_best_answers(
            section, score, seed, context.input("judgments"), context.artifact, progress=context.progress
        )
        made = drop_report.examined(report, section.max_dropped, context.artifact)
        return made | {"gain": gain, "lines": [*made["lines"], *gain_lines(gain)]}

    return Stage(
        "best_answers",
        "rows",
        {"best_answers": semantic(section), "score": score, "seed": seed},
        make,
        inputs={"judgments": judgments},
    )


def make_best_answers(
    section: BestAnswers,
    score: str,
    seed: int,
    judgments: Artifact,
    artifact: Artifact,
    *,
    progress: RowProgress | None = None,
) -> tuple[Report, list[dict[str, float]]]:
    """Writes each prompt with its best answer as a dialogue; returns what more answers buy, too.

    Raises:
        RuntimeError: Not every row arrived.
    """
    rule = Rule(seed, score=score)  # type: ignore[arg-type]
    make_rows = functools.partial(to_dialogues, rule=rule, section=section)
    rows = sources.read_artifact(judgments)
    report = writer.write(rows, artifact, DIALOGUES, measure=_measure, make=make_rows, progress=progress)
    sources.check_all_read(judgments, report.rows_in)
    return report, (report.tally or Gain()).result(section.pass_score is not None)


def to_dialogues(batch: pa.Table, *, rule: Rule, section: BestAnswers) -> tuple[pa.Table, Gain]:
    """`schemas.JUDGMENTS` rows -> `rows.mixed_schema` of `schemas.DIALOGUES` rows, and the counts."""
    rows, gain = [], Gain()
    for row in batch.to_pylist():
        try:
            completions = score_completions(row["completions"], rule).completions
            gain.count([each.score for each in completions if not each.is_cut], section.pass_score)
            rows.append(_dialogue(row, best_of(completions, rule, row["prompt_id"]), section))
        except Dropped as dropped:
            rows.append(dropped_row(row["prompt_id"], dropped))
    return pa.Table.from_pylist(rows, schema=mixed_schema(DIALOGUES)), gain


def _dialogue(row: Mapping[str, Any], best: ScoredCompletion, section: BestAnswers) -> dict[str, Any]:
    if section.min_score is not None and best.score < section.min_score:
        raise Dropped(Reason.LOW_SCORE, f"the best answer scores {best.score:g}, under {section.min_score:g}")
    messages = [*row["messages"], {"role": "assistant", "content": best.text}]
    return {"dialogue_id": content_id(messages), "messages": messages, "source": row["prompt_id"]}


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return {"messages characters": lengths.message_characters(kept["messages"])}


def gain_lines(gain: Sequence[Mapping[str, float]]) -> list[str]:
    """What a person sees: the first, the last and some n between."""
    if not gain:
        return []
    shown = [each for each in gain if math.log2(each["n"]).is_integer() or each is gain[-1]]
    best = ", ".join(f"{each['n']:g}: {each['best']:.3g}" for each in shown)
    lines = [f"  mean score of the best of n: {best}"]
    if "pass" in gain[0]:
        lines.append("  pass@n: " + ", ".join(f"{each['n']:g}: {each['pass']:.1%}" for each in shown))
    return lines
