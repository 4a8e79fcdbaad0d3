"""benchmarks/golden.py: published numbers come out of recorded data, and a wrong one does not."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import pytest
import yaml

from benchmarks import golden
from zephyr_ray.evaluation.multiple_choice import accuracy


def test_every_published_number_comes_out(outside_data: Path) -> None:
    lines = list(golden.all_lines(outside_data))
    assert [line for line in lines if not line.comes_out] == []
    assert len(lines) == sum(len(entry["published"]) for entry in golden.published()) > 60


@pytest.mark.parametrize(
    ("published", "ours", "comes_out"),
    [
        ("85.7587", 85.75870646, True),
        ("85.7587", 85.75876, False),
        ("0.85", 0.8520, True),
        ("0.86", 0.8520, False),
        ("5.475", 5.475, True),
        ("688", 688, True),
        ("688", 687, False),
        ("63.33158292362734", 63.33158292362732, True),  # 15 digits of a double count
        ("63.33158292362734", 63.3315829236276, False),
        ("0.0", 0.0, True),
    ],
)
def test_to_the_last_printed_digit(published: str, ours: float, comes_out: bool) -> None:
    assert golden.comes_out(published, ours) is comes_out


@pytest.mark.parametrize(("published", "status"), [("0.5", 0), ("0.6", 1)])
def test_the_status_says_whether_all_come_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], published: str, status: int
) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"logit_0": -1, "logit_1": -2, "truth": 0}\n{"logit_0": -1, "logit_1": -2, "truth": 1}\n'
    )
    entry = {"file": "rows.jsonl", "numbers": "winogrande", "source": "here", "published": {"acc": published}}
    (tmp_path / "published.yaml").write_text(yaml.safe_dump([entry]))
    with (
        mock.patch.object(golden, "PUBLISHED", tmp_path / "published.yaml"),
        mock.patch("sys.argv", ["golden.py", "--data", str(tmp_path)]),
    ):
        assert golden.main() == status
    assert f"| rows.jsonl | acc | {published} | 0.5 | " in capsys.readouterr().out


@pytest.mark.parametrize("folder", [None, "/nowhere"])
def test_missing_data_are_one_line(
    folder: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZEPHYR_TEST_DATA", raising=False)
    with mock.patch("sys.argv", ["golden.py", *(["--data", folder] if folder else [])]):
        assert golden.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no recorded data: ")
    assert said.count("\n") == 1


def test_accuracy_by_hand() -> None:
    found = accuracy([(-1.0, -2.0), (-3.0, -2.0), (-1.0, -1.0), (-2.0, -1.0)], [0, 0, 0, 1])
    assert found == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 3)), 4)
    with pytest.raises(ValueError, match="no question"):
        accuracy([], [])
