"""A against B: win rate, sign test, win rate at equal lengths, and whether less judging would have done.

win rate: mean of A's outcomes, a tie half a win, with a percentile bootstrap over prompts.
sign test: over prompts, those on which A did better against those on which B did, ties left out; exact, two-sided.
length-controlled win rate: `length_control`. At any time: `sequential`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from zephyr_ray.evaluation.comparison import Comparison
from zephyr_ray.evaluation.intervals import mean_interval
from zephyr_ray.evaluation.length_control import LengthControlled, length_controlled
from zephyr_ray.evaluation.sequential import BLOCK, Decision, decide, interval_at_any_time, prompt_means


class Mean(NamedTuple):
    """A mean over comparisons, with its 95 % interval by a bootstrap over prompts."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    reason: str | None = None
    """Why something is null."""


class SignTest(NamedTuple):
    """How likely so uneven a count would be if both were equally good."""

    p_value: float | None
    wins: int
    """Prompts on which A did better."""
    losses: int
    ties: int
    reason: str | None = None


class Orders(NamedTuple):
    """What the other order of the answers changes, of the comparisons that have verdicts in both."""

    n: int
    same: int
    first_shown: int
    """Opposite verdicts, each for the answer that was shown first."""
    second_shown: int


class Sequential(NamedTuple):
    """What looking at it all the time tells."""

    interval: tuple[float, float]
    """Of the win rate over prompts after the last one: it holds at all looks together."""
    decision: Decision
    block: int
    seed: int | None
    """Of the order in which the prompts come; None: as they were judged."""


@dataclass(frozen=True)
class Versus:
    """A against B."""

    a: str
    b: str
    wins: int
    """Comparisons that A wins, with a probability above 1/2 where there are probabilities."""
    losses: int
    ties: int
    prompts: int
    """Of the comparisons that count."""
    comparisons: int
    """With and without an outcome."""
    left_out: dict[str, int]
    """Comparisons without an outcome, by the reason."""
    same_answers: int
    """Comparisons of an answer with itself, which count."""
    win_rate: Mean
    score_difference: Mean
    """Mean of A's rating minus B's."""
    sign_test: SignTest
    length_controlled: LengthControlled
    sequential: Sequential | None
    """None without an outcome."""
    orders: Orders
    categories: dict[str, Mean]
    """Win rates."""


STOPPED = "judging ends as soon as it is decided, so that only the interval that holds at all looks is one"


def compare(a: str, b: str, comparisons: Sequence[Comparison], *, block: int = BLOCK, seed: int = 0) -> Versus:
    """Everything that recorded comparisons say.

    Args:
        a: Name of the model whose wins are counted.
        b: Name of the other one.
        comparisons: With and without outcomes.
        block: Prompts between two looks of the sequential rule.
        seed: Of the resamples, and of the order of the prompts for that rule.
    """
    counted = [each for each in comparisons if each.outcome is not None]
    outcomes = [each.outcome for each in counted if each.outcome is not None]
    by_category: dict[str, list[Comparison]] = {}
    for each in counted:
        if each.category is not None:
            by_category.setdefault(each.category, []).append(each)
    return Versus(
        a=a,
        b=b,
        wins=sum(outcome > 0.5 for outcome in outcomes),
        losses=sum(outcome < 0.5 for outcome in outcomes),
        ties=outcomes.count(0.5),
        prompts=len({each.prompt for each in counted}),
        comparisons=len(comparisons),
        left_out=dict(
            sorted(Counter(each.problem or "no_outcome" for each in comparisons if each.outcome is None).items())
        ),
        same_answers=sum(each.is_same_answer for each in counted),
        win_rate=_win_rate(counted, seed),
        score_difference=_score_difference(counted, seed),
        sign_test=sign_test(counted),
        length_controlled=length_controlled(counted),
        sequential=_sequential(counted, block, seed) if counted else None,
        orders=_orders(counted),
        categories={name: _win_rate(rows, seed) for name, rows in sorted(by_category.items())},
    )


def compare_until_decided(a: str, b: str, comparisons: Sequence[Comparison], *, block: int) -> Versus:
    """The same of judging that stopped as soon as it was decided: what holds for one look is null.

    Args:
        a: ...
        b: ...
        comparisons: In the order in which they were judged, which has nothing to do with their outcomes.
        block: Prompts between two looks.
    """
    result = compare(a, b, comparisons, block=block)
    counted = [each for each in comparisons if each.outcome is not None]
    means = _prompt_means(counted)
    low, high = interval_at_any_time(means)
    winner: Literal["a", "b"] | None = "a" if low > 0.5 else "b" if high < 0.5 else None
    sequential = Sequential((low, high), Decision(winner, len(means), (low, high)), block, None)
    return replace(
        result,
        win_rate=result.win_rate._replace(interval=None, reason=result.win_rate.reason or STOPPED),
        score_difference=result.score_difference._replace(interval=None),
        sign_test=result.sign_test._replace(p_value=None, reason=STOPPED),
        length_controlled=result.length_controlled._replace(interval=None),
        sequential=sequential if counted else None,
        categories={name: mean._replace(interval=None) for name, mean in result.categories.items()},
    )


def sign_test(counted: Sequence[Comparison]) -> SignTest:
    """Two-sided exact binomial test of equal chances; a prompt counts once, by its mean outcome."""
    means = _prompt_means(counted)
    wins, losses = int((means > 0.5).sum()), int((means < 0.5).sum())
    ties = len(means) - wins - losses
    if not wins + losses:
        return SignTest(None, wins, losses, ties, "every prompt is a tie" if ties else "there is no outcome")
    from scipy.stats import binomtest

    return SignTest(float(binomtest(wins, wins + losses).pvalue), wins, losses, ties)


def _prompt_means(counted: Sequence[Comparison]) -> np.ndarray:
    """[prompts], the mean outcome of each."""
    return prompt_means(
        [each.outcome for each in counted if each.outcome is not None], [each.prompt for each in counted]
    )


def _win_rate(counted: Sequence[Comparison], seed: int) -> Mean:
    return _mean([each.outcome for each in counted if each.outcome is not None], counted, seed, "there is no outcome")


def _score_difference(counted: Sequence[Comparison], seed: int) -> Mean:
    rated = [each for each in counted if each.scores]
    differences = [each.scores[0] - each.scores[1] for each in rated if each.scores]
    return _mean(differences, rated, seed, "there are no ratings")


def _mean(values: Sequence[float], rows: Sequence[Comparison], seed: int, without: str) -> Mean:
    """The mean, with an interval where the values vary among prompts."""
    if not values:
        return Mean(None, None, 0, without)
    mean = sum(values) / len(values)
    if len({each.prompt for each in rows}) < 2:
        return Mean(mean, None, len(values), "an interval takes two prompts")
    if len(set(values)) == 1:
        return Mean(mean, None, len(values), "all values are the same, so that resamples do not vary")
    return Mean(mean, mean_interval(values, [each.prompt for each in rows], seed=seed), len(values))


def _sequential(counted: Sequence[Comparison], block: int, seed: int) -> Sequential:
    means = np.random.default_rng(seed).permutation(_prompt_means(counted))
    return Sequential(interval_at_any_time(means), decide(means, block), block, seed)


def _orders(counted: Sequence[Comparison]) -> Orders:
    pairs = Counter(each.orders for each in counted if each.orders)
    same = sum(count for (first, second), count in pairs.items() if first == second)
    return Orders(pairs.total(), same, first_shown=pairs["a", "b"], second_shown=pairs["b", "a"])


def as_json(result: Versus) -> dict[str, Any]:
    """The numbers as `--json` writes them; rates are shares."""
    rate = result.win_rate
    numbers = asdict(result) | {"win_rate": rate.value, "interval": rate.interval, "n": rate.n, "reason": rate.reason}
    for name in ("score_difference", "sign_test", "length_controlled", "orders"):
        numbers[name] = getattr(result, name)._asdict()
    numbers["categories"] = {name: mean._asdict() for name, mean in result.categories.items()}
    if result.sequential:
        numbers["sequential"] = result.sequential._asdict() | {"decision": result.sequential.decision._asdict()}
    return numbers


def table_lines(result: Versus) -> list[str]:
    """The numbers for a person."""
    controlled = result.length_controlled
    lengths = f" (lengths in {controlled.unit})" if controlled.unit else ""
    rows = [
        ("win rate, ties half", *_percent(result.win_rate.value, result.win_rate.interval), result.win_rate.n),
        ("length-controlled", *_percent(controlled.win_rate, controlled.interval), f"{controlled.n}{lengths}"),
    ]
    if result.score_difference.n:
        value, interval = result.score_difference.value, result.score_difference.interval
        shown = f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "-"
        rows.append(("rating of A - of B", f"{value:+.3f}", shown, result.score_difference.n))
    rows += [(f"  {name}", *_percent(mean.value, mean.interval), mean.n) for name, mean in result.categories.items()]
    width = max(len(name) for name, *_ in rows)
    head = f"A = {result.a}, B = {result.b}: {result.win_rate.n} of {result.comparisons} comparisons count"
    lines = [
        f"{head}, over {result.prompts} prompts",
        f"{'number':<{width}} {'value':>8}   {'95 % interval':<16}  n",
        *(f"{name:<{width}} {value:>8}   {interval:<16}  {n}" for name, value, interval, n in rows),
        "",
        f"A wins {result.wins}, B wins {result.losses}, ties {result.ties}; {_sign_test_text(result.sign_test)}",
    ]
    return lines + _notes(result)


def _sign_test_text(test: SignTest) -> str:
    if test.p_value is None:
        return f"no sign test: {test.reason}"
    return f"sign test over {test.wins + test.losses} prompts without a tie: p = {test.p_value:.3g}"


def _notes(result: Versus) -> list[str]:
    lines = _sequential_lines(result.sequential) if result.sequential else []
    both = result.orders
    if both.n:
        lines.append(
            f"both orders say the same in {both.same} of {both.n}; opposite ones are for the answer shown first in "
            f"{both.first_shown}, shown second in {both.second_shown}"
        )
    if result.left_out:
        lines.append("left out " + ", ".join(f"{count} {reason}" for reason, count in result.left_out.items()))
    if result.same_answers:
        lines.append(f"comparisons of an answer with itself, which count: {result.same_answers}")
    if result.win_rate.reason:
        lines.append(f"no interval of the win rate: {result.win_rate.reason}")
    if result.length_controlled.reason:
        lines.append(f"no length-controlled win rate: {result.length_controlled.reason}")
    return lines


def _sequential_lines(found: Sequential) -> list[str]:
    (low, high), decision = found.interval, found.decision
    said = (
        f"{'A' if decision.winner == 'a' else 'B'} is ahead after {decision.after} prompts"
        if decision.winner
        else f"nothing is decided after {decision.after} prompts"
    )
    return [
        f"looking after every {found.block} prompts, in a random order, {said}; interval after the last, which holds "
        f"at all looks together: {100 * low:.1f} to {100 * high:.1f} %"
    ]


def _percent(value: float | None, interval: tuple[float, float] | None) -> tuple[str, str]:
    shown = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else "-"
    return "-" if value is None else f"{100 * value:.1f} %", shown
