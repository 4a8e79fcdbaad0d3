"""MT-Bench, single grading: mean scores by turn and category from recorded judgments.

The mean is over all scores, as FastChat's `show_result` takes it: the average is that of all judgments, not of the two
turns' means (arXiv 2306.05685, section 3.2 and its repository's llm_judge). A judgment without a score is left out and
counted.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zephyr_ray.evaluation.fastchat_files import TURNS, Judgment, QuestionId
from zephyr_ray.evaluation.intervals import mean_interval

SCALE = (1.0, 10.0)
"""What the judge prompts ask for."""


class Mean(NamedTuple):
    """A mean of scores."""

    value: float
    n: int
    interval: tuple[float, float] | None
    """95 %, by a bootstrap over questions; None with fewer than two questions."""


@dataclass(frozen=True)
class ModelScores:
    """What a judge says of one model's answers. A mean is None where there is no score."""

    model: str
    turns: tuple[Mean | None, Mean | None]
    average: Mean | None
    categories: dict[str, Mean | None]
    expected: int
    """Judgments, with or without a score, and answers that lack one: the denominator of `average.n`."""
    missing: int
    """Answers that have no judgment."""
    problems: dict[str, int]
    """Judgments without a score, by the reason."""
    off_scale: int
    """Scores outside of 1 to 10, which count as they are."""
    judge_variance: float | None
    """Variance of a score around its answer's mean, over the answers that have several scores; None without any."""
    judged_repeatedly: int
    """How many answers these are."""


def summarise(judgments: Sequence[Judgment], questions: Mapping[QuestionId, Mapping[str, Any]]) -> list[ModelScores]:
    """The scores of each model, the best average first.

    Args:
        judgments: Of any number of models and judges.
        questions: The benchmark's questions by their ids, which say what answers there should be and their categories.
            Empty: every answer is expected of a model that any model was judged on, and there are no categories.
    """
    by_model: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        by_model[judgment.model].append(judgment)
    expected = {(name, turn) for name, question in questions.items() for turn in TURNS[: len(question["turns"])]} or {
        judgment.answer for judgment in judgments
    }
    categories = {name: str(question["category"]) for name, question in questions.items()}
    scores = [_scores(model, own, expected, categories) for model, own in by_model.items()]
    return sorted(scores, key=lambda each: (-each.average.value if each.average else math.inf, each.model))


def _scores(
    model: str,
    judgments: Sequence[Judgment],
    expected: set[tuple[QuestionId, Any]],
    categories: Mapping[QuestionId, str],
) -> ModelScores:
    missing = len(expected - {judgment.answer for judgment in judgments})
    turn_1, turn_2 = (_mean(judgment for judgment in judgments if judgment.turn == turn) for turn in TURNS)
    by_category = {
        name: _mean(judgment for judgment in judgments if categories.get(judgment.question) == name)
        for name in dict.fromkeys(categories.values())
    }
    variance, answers = judge_variance(judgments)
    return ModelScores(
        model=model,
        turns=(turn_1, turn_2),
        average=_mean(judgments),
        categories=by_category,
        expected=len(judgments) + missing,
        missing=missing,
        problems=dict(Counter(judgment.problem for judgment in judgments if judgment.problem)),
        off_scale=sum(each.score is not None and not SCALE[0] <= each.score <= SCALE[1] for each in judgments),
        judge_variance=variance,
        judged_repeatedly=answers,
    )


def _mean(judgments: Iterable[Judgment]) -> Mean | None:
    scored = [(judgment.score, judgment.question) for judgment in judgments if judgment.score is not None]
    if not scored:
        return None
    scores, questions = zip(*scored, strict=True)
    return Mean(statistics.fmean(scores), len(scores), mean_interval(scores, questions))


def judge_variance(judgments: Iterable[Judgment]) -> tuple[float | None, int]:
    """The pooled variance of scores of the same answer, and the number of answers with several scores.

    The squared differences from each answer's mean, summed and divided by the sum of (scores - 1): the mean square
    within groups of a one-way analysis of variance.
    """
    by_answer: dict[Any, list[float]] = defaultdict(list)
    for judgment in judgments:
        if judgment.score is not None:
            by_answer[judgment.answer].append(judgment.score)
    several = [scores for scores in by_answer.values() if len(scores) > 1]
    if not several:
        return None, 0
    squares = math.fsum(statistics.variance(scores) * (len(scores) - 1) for scores in several)
    return squares / sum(len(scores) - 1 for scores in several), len(several)


def as_json(scores: Sequence[ModelScores]) -> dict[str, Any]:
    """The scores as `--json` writes them."""
    return {"models": {each.model: _model_json(each) for each in scores}}


def _model_json(scores: ModelScores) -> dict[str, Any]:
    means = {"turn_1": scores.turns[0], "turn_2": scores.turns[1], "average": scores.average}
    return {
        **{name: mean and mean.value for name, mean in means.items()},
        "n": scores.average.n if scores.average else 0,
        "categories": {name: mean and mean.value for name, mean in scores.categories.items()},
        "expected": scores.expected,
        "missing": scores.missing,
        "without_a_score": scores.problems,
        "off_scale": scores.off_scale,
        "intervals": {name: mean and mean.interval for name, mean in means.items()},
        "category_n": {name: mean.n if mean else 0 for name, mean in scores.categories.items()},
        "judge_variance": scores.judge_variance,
        "judged_repeatedly": scores.judged_repeatedly,
    }


def table_lines(scores: Sequence[ModelScores]) -> list[str]:
    """The table for a person, and a line for whatever of a model does not count."""
    width = max(len("model"), *(len(each.model) for each in scores))
    lines = [f"{'model':<{width}}  {'turn 1':<22} {'turn 2':<22} {'average':<22} n"]
    for each in scores:
        cells = " ".join(f"{_cell(mean):<22}" for mean in (*each.turns, each.average))
        lines.append(f"{each.model:<{width}}  {cells} {each.average.n if each.average else 0} of {each.expected}")
    if scores[0].categories:
        lines += ["", f"{'model':<{width}}  " + " ".join(f"{name:<12}" for name in scores[0].categories)]
        for each in scores:
            cells = " ".join(f"{_category_cell(mean):<12}" for mean in each.categories.values())
            lines.append(f"{each.model:<{width}}  {cells}".rstrip())
    return [*lines, "", *(note for each in scores for note in _notes(each))]


def _notes(scores: ModelScores) -> list[str]:
    left_out = [f"{count} {reason}" for reason, count in sorted(scores.problems.items())]
    left_out += [f"{scores.missing} without a judgment"] if scores.missing else []
    notes = [f"left out {', '.join(left_out)}"] if left_out else []
    if scores.off_scale:
        notes.append(f"scores outside of 1 to 10, which count: {scores.off_scale}")
    if scores.judge_variance is not None:
        several = f"{scores.judged_repeatedly} answers with several scores"
        notes.append(f"variance of the judge {scores.judge_variance:.3f} over {several}")
    return [f"{scores.model}: {note}" for note in notes]


def _cell(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    return f"{mean.value:.3f}" + (f" ({mean.interval[0]:.2f} to {mean.interval[1]:.2f})" if mean.interval else "")


def _category_cell(mean: Mean | None) -> str:
    return f"{mean.value:.2f} ({mean.n})" if mean else "-"
