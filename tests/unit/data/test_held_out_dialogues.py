"""Dialogues to evaluate on: none that opens as one that is trained on, and every row accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.pages import Page
from zephyr_ray.config.data import Dialogues
from zephyr_ray.data.held_out_dialogues import make_held_out_dialogues
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.schemas import DIALOGUES

SYSTEM = {"role": "system", "content": "Be brief."}


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, texts, strict=False)]


@pytest.mark.usefixtures("ray_cluster")
def test_dialogues_that_open_as_one_of_training_are_left_out(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "run"))
    trained = run.artifact("dialogues")
    trained.begin("f")
    (tmp_path / "run" / "dialogues" / "data").mkdir()
    rows = [talk("Who?", "I", "Why?", "So"), [SYSTEM, *talk("What?", "That")]]
    table = [{"dialogue_id": str(number), "messages": row, "source": ""} for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(table, schema=DIALOGUES), tmp_path / "run/dialogues/data/0.parquet")
    trained.finish({"fingerprint": "f", "files": ["data/0.parquet"]})
    given = [
        {"messages": talk("Who?", "I", "Why?", "So")},  # 1: the same
        {"prompt": "Who?", "completion": "You"},  # 2: in another layout, and answered otherwise
        {"messages": talk("Why?", "So")},  # 3: trained on as a later turn alone
        {"messages": talk("What?", "That")},  # 4: without the system message
        {"messages": [SYSTEM, *talk("What?", "This")]},  # 5
        {"messages": talk("Why?", "So")},  # 6: again
    ]
    file = tmp_path / "held_out.jsonl"
    file.write_text("\n".join(map(json.dumps, given)))
    artifact = run.artifact("held_out_dialogues")
    report = make_held_out_dialogues(Dialogues(held_out=str(file)), 0, trained, artifact)
    assert (report.rows_in, report.rows_out, report.dropped) == (6, 2, {"in_training": 3, "repeated": 1})
    dropped = pq.read_table(Path(artifact.path) / "dropped").to_pylist()
    assert [row["messages"][0]["content"] for row in dropped if row["reason"] == "in_training"] == [
        "Who?",
        "Who?",
        "Be brief.",
    ]
    page = Page((Path(artifact.path) / "report.html").read_text())
    assert "in training 3" in page.text
    kept = pq.read_table(Path(artifact.path) / "data").to_pylist()
    assert sorted(row["source"].rpartition(":")[2] for row in kept) == ["3", "4"]
