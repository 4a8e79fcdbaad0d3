"""AlpacaEval's files of outputs, and the pairs of answers that a judge compares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.recorded_files import ERROR, Row, read

_KEPT = ("dataset", "datasplit")


@dataclass(frozen=True)
class Pairs:
    """What is judged, in the baseline's order."""

    rows: list[Row]
    """instruction, output_1 (the baseline's), output_2 (the model's), generator_1, generator_2."""
    positions: list[int]
    """Of each row's instruction in the baseline's file, from 0."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that are not judged, by the reason."""


def read_outputs(path: str, option: str) -> list[Row]:
    """The rows of a file of outputs (`instruction`, `output`, `generator`).

    Raises:
        UserError: It cannot be read, or a row lacks one of the first two.
    """
    recorded = read(path)
    wrong = [
        row for row in recorded.rows if not all(isinstance(row.get(key), str) for key in ("instruction", "output"))
    ]
    if wrong or recorded.broken:
        raise UserError(
            f"{option} {path}: {len(wrong) + recorded.broken} of {recorded.lines} rows have no text as instruction and "
            "output; make the file anew"
        )
    return recorded.rows


def pair(outputs: Sequence[Row], baseline: Sequence[Row]) -> Pairs:
    """Pairs the answers to the same instruction; the second to a repeated one goes with the second.

    Raises:
        UserError: The two files share no instruction.
    """
    waiting: dict[str, Iterator[Row]] = {name: iter(rows) for name, rows in _by_instruction(outputs).items()}
    found = [(place, row, next(waiting.get(row["instruction"], iter(())), None)) for place, row in enumerate(baseline)]
    both = [(place, first, second) for place, first, second in found if second is not None]
    if not both:
        raise UserError("--outputs and --baseline share no instruction")
    good = [each for each in both if ERROR not in (each[1]["output"].strip(), each[2]["output"].strip())]
    counts = {
        "instructions without an answer of the model": len(baseline) - len(both),
        "answers to instructions that the baseline lacks": len(outputs) - len(both),
        f"{ERROR} in the place of an answer": len(both) - len(good),
    }
    return Pairs(
        rows=[_row(first, second) for _, first, second in good],
        positions=[place for place, _, _ in good],
        left_out={reason: count for reason, count in counts.items() if count},
    )


def _by_instruction(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["instruction"]].append(row)
    return found


def _row(first: Row, second: Row) -> Row:
    return {
        "instruction": first["instruction"],
        "output_1": first["output"],
        "generator_1": str(first.get("generator", "baseline")),
        "output_2": second["output"],
        "generator_2": str(second.get("generator", "model")),
        **{key: first[key] for key in _KEPT if key in first},
    }
