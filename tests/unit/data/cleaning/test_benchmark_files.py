"""What is a benchmark's prompt in a file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from zephyr_ray.data.cleaning.benchmark_files import fingerprints, read_prompts
from zephyr_ray.data.cleaning.decontaminate import read_benchmarks
from zephyr_ray.errors import UserError

FIELD = "prompts.decontaminate"


def test_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "mt.jsonl").write_text('{"turns": ["first turn", "second turn"]}\n\n{"turns": ["third"]}\n')
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "an instruction"}, {"instruction": "more"}]))
    (tmp_path / "text.txt").write_text(
        "plain {text}\n'a \\'literal\\''\n\n{'instruction': 'a dict'}\n'no literal\n{no dict}\n"
    )
    (tmp_path / "zip.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "packed"}\n"bare"'))
    (tmp_path / "mmlu.csv").write_text('"Which, of\nthese?",0,4,2,6,B\n What is it?,a,b,c,d,A\n')
    (tmp_path / "named.csv").write_text("Type,Question,Answer\nx,Why is it?,y\n")
    names = ("mt.jsonl", "alpaca.json", "text.txt", "zip.jsonl.gz", "mmlu.csv", "named.csv")
    found = read_prompts([str(tmp_path / name) for name in names], FIELD)
    assert [(prompt.file, prompt.line, prompt.text) for prompt in found] == [
        ("mt.jsonl", 1, "first turn"),
        ("mt.jsonl", 1, "second turn"),
        ("mt.jsonl", 3, "third"),
        ("alpaca.json", 1, "an instruction"),
        ("alpaca.json", 2, "more"),
        ("text.txt", 1, "plain {text}"),
        ("text.txt", 2, "a 'literal'"),
        ("text.txt", 4, "a dict"),
        ("text.txt", 5, "'no literal"),
        ("text.txt", 6, "{no dict}"),
        ("zip.jsonl.gz", 1, "packed"),
        ("zip.jsonl.gz", 2, "bare"),
        ("mmlu.csv", 1, "Which, of\nthese?"),
        ("mmlu.csv", 2, " What is it?"),
        ("named.csv", 2, "Why is it?"),
    ]
    assert read_benchmarks([], 13, FIELD) is None


def test_what_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    for name, content, message in (
        ("bad.jsonl", b"{", r"bad\.jsonl:1 is not JSON"),
        ("keys.jsonl", b'{"text": "x"}', r"keys\.jsonl:1 has no prompt"),
        ("turns.jsonl", b'{"turns": ["x", 3]}', r"turns\.jsonl:1 has no prompt"),
        ("bytes.txt", b"\xff\xfe", "no text in UTF-8"),
        ("empty.csv", b"", "holds no benchmark prompt"),
        ("empty.txt", b"\n", "holds no benchmark prompt"),
        ("broken.jsonl.gz", b"no gzip", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"^prompts\.decontaminate: .*{message}"):
            read_prompts([str(tmp_path / name)], FIELD)
    with pytest.raises(UserError, match=r"^prompts\.decontaminate: .*nowhere\.txt cannot be read"):
        fingerprints([str(tmp_path / "nowhere.txt")], FIELD)


def test_the_fingerprint_is_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a")
    two.write_text("a")
    assert fingerprints([str(one)], FIELD) == fingerprints([str(two)], FIELD)
    two.write_text("b")
    assert fingerprints([str(one)], FIELD) != fingerprints([str(two)], FIELD)
    assert fingerprints([], FIELD) == {}
