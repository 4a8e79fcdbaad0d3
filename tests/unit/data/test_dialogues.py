"""The stage: dialogues cleaned step by step, every row accounted for, and what a killed try has kept is kept."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zephyr_ray.config.data import Dialogues
from zephyr_ray.data import dialogues
from zephyr_ray.data.cleaning.steps import Cleaning
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.sources import RAW_ROW
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import DIALOGUES

STEPS: tuple[dict[str, Any], ...] = (
    {"type": "encoding"},
    {"type": "quality"},
    {"type": "language", "keep": ["en"]},
    {"type": "refusals"},
    {"type": "personal_data"},
)
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "bake",
    "bread",
    "near",
    "an",
    "old",
    "stone",
    "bridge",
]


def section(train: Path, *steps: Mapping[str, Any], **others: Any) -> Dialogues:
    return Dialogues.model_validate({"train": str(train), "steps": list(steps), **others})


def prose(number: int) -> str:
    """English text that is another one for each number."""
    return " ".join(WORDS[(number * 7 + place * (1 + number % 5)) % len(WORDS)] for place in range(12)) + "."


def row(number: int) -> dict[str, Any]:
    """Every fourth has an e-mail address, every seventh is empty."""
    answer = (
        "" if number % 7 == 3 else prose(number) + (f" Write to mira.{number}@posteo.de." if number % 4 == 0 else "")
    )
    question = f"Tell me of number {number}: {prose(number + 1)}"
    return {"prompt": question, "completion": "" if number % 7 == 3 else answer}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in rows).encode()))
    return path


def made(artifact: Artifact, wanted: Dialogues) -> Report:
    report = dialogues.make_dialogues(wanted, 0, artifact)
    assert report.rows_in == report.rows_out + sum(report.dropped.values())
    return report


def finished(artifact: Artifact, report: Report) -> Artifact:
    files = [{"name": name, "rows": rows} for name, rows in report.files.items()]
    artifact.finish({"fingerprint": "f", "files": files})
    return artifact


def rows_of(artifact: Artifact, folder: str) -> list[dict[str, Any]]:
    return sorted(artifact.table(folder).to_pylist(), key=lambda each: (each["source"], str(each)))


@pytest.fixture
def two_files(tmp_path: Path) -> Path:
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows" / "a.jsonl.gz", [row(number) for number in range(40)])
    write_rows(tmp_path / "rows" / "b.jsonl.gz", [row(number) for number in range(30, 70)])
    return tmp_path / "rows"


@pytest.mark.usefixtures("ray_cluster")
def test_what_is_dropped_and_changed_is_there_to_be_read(tmp_path: Path, two_files: Path) -> None:
    artifact = Run(str(tmp_path / "run")).artifact("dialogues")
    artifact.begin("f")
    report = made(artifact, section(two_files, {"type": "personal_data"}))
    empty = sum(number % 7 == 3 for number in [*range(40), *range(30, 70)])
    assert report.dropped == {"empty": empty, "repeated": 10 - sum(number % 7 == 3 for number in range(30, 40))}
    counts = report.tally.steps["personal_data"]
    masked = sum(number % 4 == 0 and number % 7 != 3 for number in [*range(40), *range(30, 70)])
    assert (counts.seen, counts.changed, counts.dropped) == (80, masked, 0)
    finished(artifact, report)
    dropped = [each for each in rows_of(artifact, "dropped") if each["reason"] == "empty"]
    assert all(each["messages"][1] == {"role": "assistant", "content": ""} for each in dropped)
    changed = rows_of(artifact, "changed")
    assert len(changed) == masked
    assert {(each["step"], each["turn"]) for each in changed} == {("personal_data", 1)}
    assert all("posteo" in each["before"] and "posteo" not in each["after"] for each in changed)
    kept = {each["source"]: each["messages"][1]["content"] for each in rows_of(artifact, "data")}
    assert all(kept.get(each["source"], each["after"]) == each["after"] for each in changed)


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_try_goes_on_with_the_rows_that_are_left(tmp_path: Path, two_files: Path) -> None:
    """The files of one source are lost, and beside the others lies what a rewriting of them had begun."""
    wanted = section(two_files, {"type": "personal_data"})
    whole = Run(str(tmp_path / "whole")).artifact("dialogues")
    whole.begin("f")
    undisturbed = made(whole, wanted)
    artifact = Run(str(tmp_path / "killed")).artifact("dialogues")
    artifact.begin("f")
    first = made(artifact, wanted)
    kept = [name for name in first.files if name.startswith("data/") and first.files[name]]
    assert len(kept) == 2
    Path(artifact.path, kept[0]).rename(Path(artifact.path, kept[0].replace(".parquet", "-repeated.parquet")))
    again = Run(str(tmp_path / "killed")).artifact("dialogues")
    assert again.begin("f")
    report = made(again, wanted)
    assert (report.rows_out, report.dropped) == (undisturbed.rows_out, undisturbed.dropped)
    assert report.stats == undisturbed.stats
    counts, others = report.tally.steps["personal_data"], undisturbed.tally.steps["personal_data"]
    assert (counts.seen, counts.changed) == (others.seen, others.changed)
    finished(whole, undisturbed)
    finished(again, report)
    for folder in ("data", "dropped", "changed"):
        assert rows_of(again, folder) == rows_of(whole, folder), folder


JSON = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)
TEXT = st.text(max_size=80) | st.sampled_from([prose(3), "As an AI language model, I cannot do that.", "Ünïcödé", ""])
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT})
ANY_ROW = st.one_of(
    st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=6)}),
    st.fixed_dictionaries({"data": st.lists(TEXT, max_size=5)}),
    st.fixed_dictionaries(
        {"conversations": st.lists(st.fixed_dictionaries({"from": TEXT, "value": TEXT}), max_size=3)}
    ),
    st.fixed_dictionaries({"instruction": TEXT, "input": TEXT, "output": TEXT}),
    st.fixed_dictionaries(
        {"instruction": TEXT, "instances": st.lists(st.fixed_dictionaries({"input": TEXT, "output": TEXT}), max_size=2)}
    ),
    st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}),
    st.dictionaries(st.sampled_from(["messages", "prompt", "completion", "data"]), JSON),
)


@settings(deadline=None)
@given(st.lists(ANY_ROW, max_size=4))
def test_a_row_comes_out_once_kept_or_dropped(rows: list[dict[str, Any]]) -> None:
    cleaning = Cleaning(section(Path("f"), *STEPS).steps)
    lines = [json.dumps(each).encode() for each in rows]
    raw = pa.table([[f"f:{number}" for number in range(len(rows))], lines], schema=RAW_ROW)
    table, counts = dialogues.to_dialogues(raw, cleaning=cleaning)
    assert table.schema.names == [*mixed_schema(DIALOGUES).names, "changes"]
    assert table["source"].to_pylist() == raw["source"].to_pylist()
    for each in table.to_pylist():
        assert (each["reason"] is None) == (each["dialogue_id"] is not None)
        if each["reason"] is None:
            assert each["messages"][-1]["role"] == "assistant"
    by_step = Counter({name: count.dropped for name, count in counts.steps.items()})
    assert by_step.total() <= len(rows)
