"""Reads MMLU's questions as their authors publish them: `dev/SUBJECT_dev.csv` and `test/SUBJECT_test.csv` in a folder.

A line is question, A, B, C, D, answer, without a header (Hendrycks et al., arXiv 2009.03300).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zephyr_ray.errors import UserError

SPLITS = ("dev", "test")
ANSWERS = "ABCD"

Subjects = dict[str, dict[str, list[dict[str, Any]]]]
"""{subject: {split: rows}}; a row is {"question": text, "subject", "choices": [4 texts], "answer": 0 to 3}."""


def read_subjects(folder: str) -> Subjects:
    """All subjects of a folder, each with both splits; every cell stays the text that it is.

    Raises:
        UserError: There is none, a subject has one split only, or a line is no question.
    """
    names = sorted(path.name.removesuffix("_test.csv") for path in Path(folder, "test").glob("*_test.csv"))
    if not names:
        raise UserError(f"--mmlu {folder} holds no test/SUBJECT_test.csv; give MMLU's folder with dev/ and test/")
    return {
        name: {split: _rows(Path(folder, split, f"{name}_{split}.csv"), name) for split in SPLITS} for name in names
    }


def write_parquet(subjects: Subjects, folder: Path) -> dict[str, dict[str, str]]:
    """Writes a Parquet file for each split, whose columns are those of the dataset `cais/mmlu`.

    CSV is not handed on, because readers of it make numbers of "0.50" and nothing of "None".

    Returns:
        {subject: {split: path}}.
    """
    return {
        name: {split: _written(rows, folder / f"{name}_{split}.parquet") for split, rows in splits.items()}
        for name, splits in subjects.items()
    }


def content(subjects: Mapping[str, Any]) -> str:
    """A hash of all questions, to tell by which data a result came."""
    from zephyr_ray.pipeline.fingerprints import content_id

    return content_id(subjects)


def _rows(path: Path, subject: str) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [cells for cells in csv.reader(file) if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{path} cannot be read: {reason}") from None
    if not lines:
        raise UserError(f"{path} holds no question")
    return [_question(cells, subject, f"{path}, question {number}") for number, cells in enumerate(lines, 1)]


def _question(cells: list[str], subject: str, place: str) -> dict[str, Any]:
    if len(cells) != 6 or cells[5] not in tuple(ANSWERS):
        raise UserError(f"{place} is not question,A,B,C,D,answer with an answer of {', '.join(ANSWERS)}")
    question, *choices, answer = cells
    return {"question": question, "subject": subject, "choices": choices, "answer": ANSWERS.index(answer)}


def _written(rows: list[dict[str, Any]], path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"question": pa.string(), "subject": pa.string(), "choices": pa.list_(pa.string()), "answer": pa.int64()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), path)
    return str(path)
