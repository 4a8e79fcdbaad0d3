"""Works published numbers out again from recorded data -> a table of published, ours and their difference.

    python benchmarks/golden.py --data DIR        # or ZEPHYR_TEST_DATA=DIR make golden
    python benchmarks/golden.py --json golden.json

published.yaml says what is published where; the data are not part of the project. A number comes out if it is the same
to its last printed digit. Of the 16 or 17 digits of a double that some sources print, 15 count: the rest says in what
order it was added up. The exit status is 1 if a number does not come out, and 2 if there are no data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import alpaca_eval, fastchat_files, mt_bench, recorded_files
from zephyr_ray.evaluation.agreement import cohens_kappa
from zephyr_ray.evaluation.multiple_choice import accuracy

PUBLISHED = Path(__file__).with_name("published.yaml")
SIGNIFICANT = 15
"""Decimal digits that every double keeps."""


class Line(NamedTuple):
    """A published number and ours."""

    file: str
    name: str
    published: str
    ours: float

    @property
    def comes_out(self) -> bool:
        return comes_out(self.published, self.ours)

    @property
    def difference(self) -> Decimal:
        """Ours, rounded as the published one is, minus that."""
        return rounded_as(self.published, self.ours) - significant(Decimal(self.published))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ZEPHYR_TEST_DATA"), help="folder of the recorded data")
    parser.add_argument("--json", metavar="OUT", help="write the lines here")
    args = parser.parse_args()
    try:
        lines = list(all_lines(data_folder(args.data)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("| file | number | published | ours | difference |\n| --- | --- | ---: | ---: | ---: |")
    for line in lines:
        print(f"| {line.file} | {line.name} | {line.published} | {line.ours!r} | {line.difference:f} |")
    out = sum(line.comes_out for line in lines)
    print("\n" + "\n".join(f"{entry['file']}: {entry['source']}" for entry in published()))
    print(f"\n{out} of {len(lines)} published numbers come out to their last digit")
    if args.json:
        text = json.dumps([line._asdict() | {"comes_out": line.comes_out} for line in lines], indent=2)
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    return 0 if out == len(lines) else 1


def data_folder(name: str | None) -> Path:
    """The folder of the recorded data.

    Raises:
        UserError: None is named, or it is not there.
    """
    if not name:
        raise UserError("no recorded data: name their folder by --data or ZEPHYR_TEST_DATA")
    if not Path(name).is_dir():
        raise UserError(f"no recorded data: {name} is no folder; name it by --data or ZEPHYR_TEST_DATA")
    return Path(name)


def published() -> list[dict[str, Any]]:
    """The entries of published.yaml."""
    entries: list[dict[str, Any]] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    return entries


def all_lines(data: Path) -> Iterator[Line]:
    """Every published number with ours.

    Raises:
        UserError: A file is missing.
    """
    for entry in published():
        ours = NUMBERS[entry["numbers"]](recorded_files.read(str(data / entry["file"])))
        yield from (Line(entry["file"], name, text, ours[name]) for name, text in entry["published"].items())


def comes_out(published: str, ours: float) -> bool:
    """Whether a number is the published one to its last printed digit, of which `SIGNIFICANT` count."""
    return rounded_as(published, ours) == significant(Decimal(published))


def rounded_as(published: str, ours: float) -> Decimal:
    """Our number with as many decimals as the published one has."""
    exponent = significant(Decimal(published)).as_tuple().exponent
    return Decimal(repr(ours)).quantize(Decimal(1).scaleb(int(exponent)), rounding=ROUND_HALF_EVEN)


def significant(number: Decimal) -> Decimal:
    return Context(prec=SIGNIFICANT, rounding=ROUND_HALF_EVEN).plus(number)


def alpaca_numbers(recorded: recorded_files.Recorded) -> dict[str, float]:
    """By the names of the leaderboard's columns; it cuts the mean length to whole characters."""
    rate = alpaca_eval.summarise(recorded.rows)
    numbers = {
        "win_rate": rate.win_rate,
        "standard_error": rate.standard_error,
        "discrete_win_rate": rate.discrete_win_rate,
        "n_wins": rate.wins,
        "n_wins_base": rate.losses,
        "n_draws": rate.draws,
        "n_total": rate.n,
        "avg_length": int(rate.average_length or 0),
        "length_controlled_winrate": rate.length_controlled_win_rate,
    }
    return {name: number for name, number in numbers.items() if number is not None}


def winogrande_numbers(recorded: recorded_files.Recorded) -> dict[str, float]:
    rows = recorded.rows
    return {"acc": accuracy([(row["logit_0"], row["logit_1"]) for row in rows], [row["truth"] for row in rows]).value}


def mt_bench_numbers(recorded: recorded_files.Recorded) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for scores in mt_bench.summarise(fastchat_files.single_judgments(recorded).judgments, {}):
        means = {"turn 1": scores.turns[0], "turn 2": scores.turns[1], "average": scores.average}
        numbers |= {f"{scores.model} {name}": mean.value for name, mean in means.items() if mean}
    return numbers


def pandalm_numbers(recorded: recorded_files.Recorded) -> dict[str, float]:
    """Kappa of each two annotators, and how often a label (0: a tie) has the majority."""
    numbers: dict[str, float] = {}
    labels = [[row[f"annotator{number}"] for number in (1, 2, 3)] for row in recorded.rows]
    for first, second in combinations(range(3), 2):
        kappa = cohens_kappa(Counter((row[first], row[second]) for row in labels))
        numbers |= {f"kappa {first + 1}-{second + 1}": kappa} if kappa is not None else {}
    majority = Counter(Counter(row).most_common(1)[0][0] for row in labels)
    return numbers | {f"label {label}": count for label, count in majority.items()}


NUMBERS: dict[str, Callable[[recorded_files.Recorded], dict[str, Any]]] = {
    "alpaca_eval": alpaca_numbers,
    "winogrande": winogrande_numbers,
    "mt_bench": mt_bench_numbers,
    "pandalm": pandalm_numbers,
}


if __name__ == "__main__":
    sys.exit(main())
