"""MMLU's CSV files: every cell stays text, and what is no question is told."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import mmlu_files

LINE = '"How much, or ""none""?",0.50,None,007,NaN,C\n'


def folder(root: Path, test: str = LINE, dev: str | None = LINE) -> str:
    for split, text in (("test", test), ("dev", dev)):
        if text is not None:
            (root / split).mkdir()
            (root / split / f"anatomy_{split}.csv").write_text(text, encoding="utf-8")
    return str(root)


def test_cells_stay_the_text_that_they_are(tmp_path: Path) -> None:
    subjects = mmlu_files.read_subjects(folder(tmp_path))
    row = {
        "question": 'How much, or "none"?',
        "subject": "anatomy",
        "choices": ["0.50", "None", "007", "NaN"],
        "answer": 2,
    }
    assert subjects == {"anatomy": {"dev": [row], "test": [row]}}
    files = mmlu_files.write_parquet(subjects, tmp_path / "parquet")
    assert pq.read_table(files["anatomy"]["test"]).to_pylist() == [row]


def test_other_questions_have_another_hash(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = mmlu_files.read_subjects(folder(tmp_path / "a"))
    second = mmlu_files.read_subjects(folder(tmp_path / "b", test=LINE.replace(",C", ",D")))
    assert mmlu_files.content(first) != mmlu_files.content(second)


@pytest.mark.parametrize(
    ("test", "dev", "says"),
    [
        (LINE, None, r"dev/anatomy_dev.csv cannot be read: No such file"),
        (LINE + "a,b,c\n", LINE, r"anatomy_test.csv, question 2 is not question,A,B,C,D,answer"),
        (LINE.replace(",C", ",E"), LINE, r"question 1 is not question,A,B,C,D,answer with an answer of A, B, C, D"),
        ("\n", LINE, r"anatomy_test.csv holds no question"),
    ],
)
def test_wrong_files_are_told(tmp_path: Path, test: str, dev: str | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        mmlu_files.read_subjects(folder(tmp_path, test, dev))


def test_a_folder_of_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no test/SUBJECT_test.csv"):
        mmlu_files.read_subjects(str(tmp_path))
