"""MT-Bench, pairwise comparison: wins, losses and ties from recorded judgments of both orders.

An answer wins if the judge prefers it in both orders; a tie in either order, or two orders that disagree, is a tie
(arXiv 2306.05685, section 3.4, and FastChat's `show_result`). Judgments of which an order has no verdict are left out
and counted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.evaluation.fastchat_files import PairJudgment, QuestionId
from zephyr_ray.evaluation.intervals import mean_interval

POINTS = {"win": 1.0, "tie": 0.5, "loss": 0.0}
"""What a result is worth for a win rate."""


@dataclass(frozen=True)
class Record:
    """Wins, losses and ties of a model, against one other or against all."""

    model: str
    win: int
    loss: int
    tie: int
    interval: tuple[float, float] | None
    """95 % interval of `win_rate_adjusted`, by a bootstrap over questions."""
    expected: int
    """Judgments with and without verdicts."""

    @property
    def n(self) -> int:
        return self.win + self.loss + self.tie

    @property
    def win_rate_adjusted(self) -> float | None:
        """Share of wins, a tie as half of one; None without any judgment."""
        return (self.win + 0.5 * self.tie) / self.n if self.n else None


@dataclass(frozen=True)
class Orders:
    """How the verdicts of the two orders compare, of the judgments that have both."""

    n: int
    same: int
    first_shown: int
    """Judgments in which the answer that was shown first won twice."""
    second_shown: int
    tie_in_one: int
    """A tie in one order and a winner in the other."""


def records(judgments: Sequence[PairJudgment]) -> list[Record]:
    """The record of each model against all others, the highest adjusted win rate first."""
    by_model: dict[str, list[tuple[QuestionId, str | None]]] = defaultdict(list)
    for judgment in judgments:
        for model in {judgment.model_1: None, judgment.model_2: None}:
            by_model[model].append((judgment.question, outcome(judgment, model)))
    return _sorted(_record(model, outcomes) for model, outcomes in by_model.items())


def pair_records(judgments: Sequence[PairJudgment]) -> list[tuple[Record, str]]:
    """The record of the first model of each pair, with the name of the other."""
    by_pair: dict[tuple[str, str], list[tuple[QuestionId, str | None]]] = defaultdict(list)
    for judgment in judgments:
        first, second = sorted((judgment.model_1, judgment.model_2))
        by_pair[first, second].append((judgment.question, outcome(judgment, first)))
    return [(_record(first, outcomes), second) for (first, second), outcomes in sorted(by_pair.items())]


def outcome(judgment: PairJudgment, model: str) -> str | None:
    """`win`, `loss` or `tie` for one of the two models; None without verdicts."""
    if judgment.problem:
        return None
    if judgment.first_game == "tie" or judgment.first_game != judgment.second_game:
        return "tie"
    winner = judgment.model_1 if judgment.first_game == "model_1" else judgment.model_2
    return "win" if winner == model else "loss"


def orders(judgments: Iterable[PairJudgment]) -> Orders:
    """What a change of the order changes."""
    games = Counter((each.first_game, each.second_game) for each in judgments if not each.problem)
    same = sum(count for (first, second), count in games.items() if first == second)
    first_shown, second_shown = games["model_1", "model_2"], games["model_2", "model_1"]
    n = games.total()
    return Orders(n, same, first_shown, second_shown, n - same - first_shown - second_shown)


def as_json(judgments: Sequence[PairJudgment]) -> dict[str, Any]:
    """The records as `--json` writes them; names and shares are those of FastChat's `show_result`."""
    compared = orders(judgments)
    return {
        "models": {record.model: _record_json(record) for record in records(judgments)},
        "pairs": [
            {"model_1": record.model, "model_2": other, **_record_json(record)}
            for record, other in pair_records(judgments)
        ],
        "without_a_verdict": _problems(judgments),
        "swap_consistency": compared.same / compared.n if compared.n else None,
        "orders": {
            "n": compared.n,
            "same": compared.same,
            "first_shown_wins": compared.first_shown,
            "second_shown_wins": compared.second_shown,
            "tie_in_one": compared.tie_in_one,
        },
    }


def table_lines(judgments: Sequence[PairJudgment]) -> list[str]:
    """The table for a person."""
    listed = records(judgments)
    width = max(len("model"), *(len(record.model) for record in listed))
    lines = [f"{'model':<{width}}  {'win':>5} {'loss':>5} {'tie':>5}  {'win rate, ties half':<27} n"]
    for record in listed:
        rate = "-" if record.win_rate_adjusted is None else f"{100 * record.win_rate_adjusted:.1f} %"
        if record.interval:
            rate += f" ({100 * record.interval[0]:.1f} to {100 * record.interval[1]:.1f})"
        counts = f"{record.win:>5} {record.loss:>5} {record.tie:>5}"
        lines.append(f"{record.model:<{width}}  {counts}  {rate:<27} {record.n} of {record.expected}")
    compared = orders(judgments)
    lines += [
        "",
        f"both orders say the same in {compared.same} of {compared.n}; the answer shown first wins both in "
        f"{compared.first_shown}, the second in {compared.second_shown}, a tie in one order in {compared.tie_in_one}",
    ]
    problems = [f"{count} {reason}" for reason, count in _problems(judgments).items()]
    return lines + ([f"left out {', '.join(problems)}"] if problems else [])


def _record(model: str, outcomes: Sequence[tuple[QuestionId, str | None]]) -> Record:
    counted = [(question, each) for question, each in outcomes if each is not None]
    counts = Counter(each for _, each in counted)
    interval = mean_interval([POINTS[each] for _, each in counted], [question for question, _ in counted])
    return Record(model, counts["win"], counts["loss"], counts["tie"], interval, len(outcomes))


def _record_json(record: Record) -> dict[str, Any]:
    return {
        "win": record.win,
        "loss": record.loss,
        "tie": record.tie,
        "win_rate": record.win / record.n if record.n else None,
        "loss_rate": record.loss / record.n if record.n else None,
        "win_rate_adjusted": record.win_rate_adjusted,
        "interval": record.interval,
        "n": record.n,
        "expected": record.expected,
    }


def _problems(judgments: Iterable[PairJudgment]) -> dict[str, int]:
    return dict(sorted(Counter(judgment.problem for judgment in judgments if judgment.problem).items()))


def _sorted(listed: Iterable[Record]) -> list[Record]:
    def key(record: Record) -> tuple[float, str]:
        return -record.win_rate_adjusted if record.win_rate_adjusted is not None else math.inf, record.model

    return sorted(listed, key=key)
