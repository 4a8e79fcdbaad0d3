"""Files of recorded judgments: cut lines are counted, and what cannot be read is one clear line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.recorded_files import Recorded, number, read


def test_lines_and_arrays_plain_and_gz(tmp_path: Path) -> None:
    lines, array = '\ufeff{"a": 1}\r\n\n{"a": 2}\n', ' [{"a": 1},\n {"a": 2}]'
    for name, text in (("lines.jsonl", lines), ("array.json", array)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        for file in (name, f"{name}.gz"):
            assert read(str(tmp_path / file)) == Recorded([{"a": 1}, {"a": 2}], broken=0)


def test_what_is_cut_or_no_object_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_bytes(b'{"a": "\xc3\xa9"}\n[1]\n3\n{"a": "\xc3')  # cut within a character
    found = read(str(file))
    assert (found.rows, found.broken, found.lines) == ([{"a": "é"}], 3, 4)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.jsonl", None, "No such file or directory"),
        ("empty.jsonl", b"\n", "holds no JSON object"),
        ("binary", b"\x80\x81\x82", "holds no JSON object"),
        ("cut.json", b'[{"a": 1}, {"a', "is no whole JSON array"),
        ("cut.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:-4], "cannot be read"),
        ("plain.jsonl.gz", b'{"a": 1}\n', "Not a gzipped file"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as raised:
        read(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_numbers() -> None:
    given = (3, 2.5, True, "3", None, float("nan"), float("inf"), [1])
    assert [number(value) for value in given] == [3.0, 2.5, None, None, None, None, None, None]
