"""AlpacaEval: win rate and its standard error from recorded annotations (`annotations.json`).

A preference is 1 for the baseline's answer (`output_1`), 2 for the model's (`output_2`), or between them with a judge
that gives probabilities; 0 (AlpacaEval 1) and 1.5 are draws. The win rate is the mean of the preference - 1, in
percent, as the leaderboard has it (arXiv 2404.04475, section 2; the package `alpaca_eval`, metrics/helpers.py).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.intervals import mean_interval
from zephyr_ray.evaluation.recorded_files import ERROR, Row, number

NO_LENGTH_CONTROL = (
    "length control takes a regression on the difficulty of AlpacaEval's instructions and on its gamed baselines, "
    "which are not among the annotations; --length-control names the file"
)


@dataclass(frozen=True)
class WinRate:
    """How often a judge prefers the model's answers; rates are in percent."""

    model: str
    baseline: str
    win_rate: float
    standard_error: float | None
    """Of the mean, with n - 1; None of a single preference."""
    interval: tuple[float, float] | None
    """95 % interval of the win rate, by a bootstrap over instructions."""
    n: int
    rows: int
    left_out: dict[str, int]
    """Rows without a preference, by the reason."""
    wins: int
    losses: int
    draws: int
    repeated: int
    """Rows with an instruction of an earlier one; they count, as on the leaderboard."""
    average_length: float | None
    """Mean length of the model's answers in characters, of all rows that have one."""
    length_controlled_win_rate: float | None
    length_controlled_reason: str | None
    """Why there is no length-controlled win rate."""
    length_controlled_standard_error: float | None = None

    @property
    def discrete_win_rate(self) -> float:
        """Every preference rounded to a win, a loss or a draw, which counts half."""
        return 100 * (self.wins + self.draws / 2) / self.n


def summarise(rows: Sequence[Row]) -> WinRate:
    """The win rate of one model's annotations.

    Raises:
        UserError: They are of several models, or none has a preference.
    """
    model, baseline = _only(rows, "generator_2"), _only(rows, "generator_1")
    readings = [preference(row) for row in rows]
    kept = [(share, row) for share, row in zip(readings, rows, strict=True) if isinstance(share, float)]
    if not kept:
        raise UserError(f"none of {len(rows)} annotations has a preference from 1 to 2, or 0; is it annotations.json?")
    shares = [share for share, _ in kept]
    instructions = [str(row.get("instruction", place)) for place, (_, row) in enumerate(kept)]
    interval = mean_interval(shares, instructions)
    lengths = [len(row["output_2"]) for row in rows if isinstance(row.get("output_2"), str)]
    is_itself = bool(model) and model == baseline
    return WinRate(
        model=model,
        baseline=baseline,
        win_rate=100 * statistics.fmean(shares),
        standard_error=100 * statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else None,
        interval=interval and (100 * interval[0], 100 * interval[1]),
        n=len(shares),
        rows=len(rows),
        left_out=dict(sorted(Counter(reason for reason in readings if isinstance(reason, str)).items())),
        wins=sum(share > 0.5 for share in shares),
        losses=sum(share < 0.5 for share in shares),
        draws=shares.count(0.5),
        repeated=len(instructions) - len(set(instructions)),
        average_length=statistics.fmean(lengths) if lengths else None,
        # The package defines it so, since a baseline differs from itself in nothing.
        length_controlled_win_rate=50.0 if is_itself else None,
        length_controlled_reason=None if is_itself else NO_LENGTH_CONTROL,
    )


def as_json(rate: WinRate) -> dict[str, Any]:
    """The result as `--json` writes it."""
    return {
        "win_rate": rate.win_rate,
        "standard_error": rate.standard_error,
        "n": rate.n,
        "length_controlled_win_rate": rate.length_controlled_win_rate,
        "length_controlled_reason": rate.length_controlled_reason,
        "length_controlled_standard_error": rate.length_controlled_standard_error,
        "interval": rate.interval,
        "discrete_win_rate": rate.discrete_win_rate,
        "wins": rate.wins,
        "losses": rate.losses,
        "draws": rate.draws,
        "rows": rate.rows,
        "left_out": rate.left_out,
        "repeated": rate.repeated,
        "average_length": rate.average_length,
        "model": rate.model,
        "baseline": rate.baseline,
    }


def table_lines(rate: WinRate) -> list[str]:
    """The result for a person."""
    width = max(len(rate.model), len("model"))
    error = "-" if rate.standard_error is None else f"{rate.standard_error:.2f}"
    interval = f"{rate.interval[0]:.2f} to {rate.interval[1]:.2f}" if rate.interval else "-"
    controlled = "-" if rate.length_controlled_win_rate is None else f"{rate.length_controlled_win_rate:.2f}"
    lines = [
        f"{'model':<{width}}  win rate, %  standard error  95 % interval   length-controlled  n",
        f"{rate.model:<{width}}  {rate.win_rate:<11.2f}  {error:<14}  {interval:<14}  {controlled:<17}  "
        f"{rate.n} of {rate.rows}",
        "",
        f"against {rate.baseline or 'a baseline without a name'}: {rate.wins} wins, {rate.losses} losses, "
        f"{rate.draws} draws",
    ]
    if rate.left_out:
        lines.append("left out " + ", ".join(f"{count} {reason}" for reason, count in rate.left_out.items()))
    if rate.repeated:
        lines.append(f"rows that repeat an instruction, which count as on the leaderboard: {rate.repeated}")
    if rate.length_controlled_reason:
        lines.append(f"no length-controlled win rate: {rate.length_controlled_reason}")
    return lines


def preference(row: Row) -> float | str:
    """The model's share of a preference, 0 to 1, or why there is none."""
    if any(
        isinstance(answer, str) and answer.strip() == ERROR for answer in (row.get("output_1"), row.get("output_2"))
    ):
        return "answer_error"
    given = number(row.get("preference"))
    if given is None:
        return "null" if row.get("preference") is None else "no_preference"
    if given == 0:
        return 0.5
    return given - 1 if 1 <= given <= 2 else "no_preference"


def _only(rows: Sequence[Row], key: str) -> str:
    """The one name under the key in all rows that have it.

    Raises:
        UserError: There are several.
    """
    names = sorted({str(row[key]) for row in rows if row.get(key) is not None})
    if len(names) > 1:
        raise UserError(f"there are {len(names)} of {key} ({', '.join(names[:3])}); give one file for each")
    return names[0] if names else ""
