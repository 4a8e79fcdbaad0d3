"""Choices that people make on the chat page: rows that are whole, stored once, and trained on."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.serving.gateway.standin import QUESTION, refused
from tests.unit.serving.gateway.test_request_models import JSON
from zephyr_ray.data.formats import layouts
from zephyr_ray.data.io import sources
from zephyr_ray.data.io.readers import read_part, split_lines
from zephyr_ray.data.io.rows import convert
from zephyr_ray.errors import UserError
from zephyr_ray.schemas import PREFERENCES
from zephyr_ray.serving.gateway.errors import ApiError
from zephyr_ray.serving.gateway.feedback import Feedback, FeedbackBody, FeedbackObjects, open_feedback, parse, row

FIRST = {"model": "new", "fingerprint": "f1", "content": "Yes"}
SECOND = {"model": "old", "fingerprint": None, "content": "No"}


def sent(number: int = 1, **fields: Any) -> dict[str, Any]:
    compare = {"kind": "compare", "messages": QUESTION, "answers": [FIRST, SECOND], "choice": 0}
    return {"id": str(uuid.UUID(int=number)), **compare, **fields}


def choice(number: int = 1, **fields: Any) -> FeedbackBody:
    return parse(json.dumps(sent(number, **fields)).encode())


def thumb(number: int, way: str) -> FeedbackBody:
    return choice(number, kind="thumb", answers=[FIRST], choice=way)


def lines(folder: Path) -> list[str]:
    return [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]


def ids(folder: Path) -> list[int]:
    return sorted(uuid.UUID(json.loads(line)["feedback_id"]).int for line in lines(folder))


# --- the row


def test_the_better_answer_of_a_comparison_is_chosen() -> None:
    made = row(choice(7, choice=1, settings={"temperature": 0.5, "seeds": [1, 2]}))
    made.pop("time")
    assert made == {
        "prompt": QUESTION,
        "chosen": [{"role": "assistant", "content": "No"}],
        "rejected": [{"role": "assistant", "content": "Yes"}],
        "score_chosen": 1.0,
        "score_rejected": 0.0,
        "chosen_model": "old",
        "rejected_model": "new",
        "chosen_fingerprint": None,
        "rejected_fingerprint": "f1",
        "feedback_id": str(uuid.UUID(int=7)),
        "kind": "compare",
        "choice": 1,
        "settings": {"temperature": 0.5, "seeds": [1, 2]},
    }


def test_a_tie_has_equal_scores_in_the_order_shown() -> None:
    made = row(choice(choice="tie"))
    assert (made["chosen"][0]["content"], made["rejected"][0]["content"]) == ("Yes", "No")
    assert (made["score_chosen"], made["score_rejected"], made["choice"]) == (0.5, 0.5, "tie")


def test_a_thumb_has_one_answer_and_no_other() -> None:
    up, down = row(thumb(1, "up")), row(thumb(1, "down"))
    assert (up["chosen"], up["rejected"]) == ([{"role": "assistant", "content": "Yes"}], None)
    assert (down["chosen"], down["rejected"]) == (None, [{"role": "assistant", "content": "Yes"}])
    assert (up["score_chosen"], up["score_rejected"]) == (1.0, None)
    assert (down["score_chosen"], down["score_rejected"]) == (None, 0.0)
    assert (down["chosen_model"], down["rejected_model"], down["rejected_fingerprint"]) == (None, "new", "f1")


def test_a_pair_of_thumbs_is_a_pair() -> None:
    made = row(choice(kind="thumb_pair", choice=0))
    assert (made["chosen"][0]["content"], made["rejected"][0]["content"], made["score_chosen"]) == ("Yes", "No", 1.0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": "1"}, "id"),
        ({"kind": "star"}, "kind"),
        ({"choice": 2}, "choice"),
        ({"choice": "up"}, "body"),
        ({"kind": "thumb", "choice": "up"}, "body"),
        ({"kind": "thumb", "answers": [FIRST], "choice": 0}, "body"),
        ({"kind": "thumb_pair", "choice": "tie"}, "body"),
        ({"answers": [FIRST]}, "body"),
        ({"answers": [FIRST] * 3}, "answers"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "x"}]}, "body"),
        ({"messages": []}, "messages"),
        ({"note": "x"}, "note"),
        ({"settings": {"seeds": [-1]}}, "settings.seeds.0"),
    ],
)
def test_a_wrong_choice_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as raised:
        choice(**fields)
    assert refused(raised) == (400, field)


def _only_400(data: bytes) -> FeedbackBody | None:
    try:
        return parse(data)
    except ApiError as error:
        if error.status != 400 or not error.message:
            raise
        return None


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert _only_400(data) is None


@given(st.dictionaries(st.sampled_from(sorted(FeedbackBody.model_fields)), JSON, max_size=3))
def test_any_value_of_any_field_is_read_or_refused(fields: dict[str, Any]) -> None:
    if (body := _only_400(json.dumps({**sent(), **fields}).encode())) is not None:
        json.dumps(row(body)).encode()


# --- the folder

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\r\x00\x85\u2028\u2029"\\'), max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, st.sampled_from([0, 1, "tie", "up", "down"])), min_size=1, max_size=4))
def test_every_stored_line_is_a_whole_row(tmp_path_factory: pytest.TempPathFactory, given: list[Any]) -> None:
    folder, stored = tmp_path_factory.mktemp("feedback"), []
    feedback = Feedback(str(folder))
    for number, (question, one, two, what) in enumerate(given):
        kind = "thumb" if what in ("up", "down") else "compare"
        answers = [{**FIRST, "content": one}, {**SECOND, "content": two}][: 1 if kind == "thumb" else 2]
        body = choice(number, kind=kind, messages=[{"role": "user", "content": question}], answers=answers, choice=what)
        assert feedback.store(body)
        stored.append(row(body))
    (file,) = folder.glob("*.jsonl")
    data = file.read_bytes()
    assert data.endswith(b"\n")
    found = [json.loads(line) for line in data.split(b"\n")[:-1]]
    assert [{**each, "time": ""} for each in found] == [{**each, "time": ""} for each in stored]


def test_a_choice_that_is_sent_twice_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    first = Feedback(str(tmp_path))
    assert [first.store(choice(1)), first.store(choice(2)), first.store(choice(1, choice=1))] == [True, True, False]
    before = lines(tmp_path)
    second = Feedback(str(tmp_path))
    assert [second.store(choice(2)), second.store(choice(3))] == [False, True]
    assert ids(tmp_path) == [1, 2, 3]
    assert set(before) < set(lines(tmp_path))  # what is there is never written again


def test_a_row_is_on_the_disk_before_the_client_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda file, data: (calls.append("write"), write(file, data))[1])
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file))[1])
    Feedback(str(tmp_path)).store(choice())
    assert calls == ["fsync", "write", "fsync"]  # the folder's new file, the row, the row on the disk


def test_a_kill_amid_a_row_loses_that_row_alone(tmp_path: Path) -> None:
    killed = Feedback(str(tmp_path))
    for number in (1, 2):
        killed.store(choice(number))
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-9])
    again = Feedback(str(tmp_path))
    assert [again.store(choice(1)), again.store(choice(2))] == [False, True]
    assert ids_of_whole_lines(tmp_path) == [1, 2]


def ids_of_whole_lines(folder: Path) -> list[int]:
    whole = [line for line in lines(folder) if line.endswith("}")]
    return sorted(uuid.UUID(json.loads(line)["feedback_id"]).int for line in whole)


def test_nothing_follows_a_row_that_a_full_disk_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback, write = Feedback(str(tmp_path)), os.write
    feedback.store(choice(1))
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, data: write(file, data[:20]))
        with pytest.raises(OSError, match="part of a row"):
            feedback.store(choice(2))
    assert [feedback.store(choice(1)), feedback.store(choice(2))] == [False, True]
    assert ids_of_whole_lines(tmp_path) == [1, 2]
    cut = [line for line in lines(tmp_path) if not line.endswith("}")]
    assert [len(line) for line in cut] == [20]


def test_strangers_lines_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('[]\n{"feedback_id": [1]}\n{"a": 1}\n\xff\n' + "[" * 9999, "latin-1")
    assert Feedback(str(tmp_path)).store(choice())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Feedback(str(tmp_path / "file")).check_writable()
    Feedback(str(tmp_path / "a/b")).check_writable()
    assert (tmp_path / "a/b").is_dir()


# --- an object store


def objects(store: pafs.FileSystem) -> dict[str, dict[str, Any]]:
    found = store.get_file_info(pafs.FileSelector("feedback", recursive=True))
    return {info.base_name: json.loads(store.open_input_stream(info.path).read()) for info in found}


def test_in_an_object_store_a_choice_is_an_object_and_counts_once_at_any_gateway() -> None:
    store = pafs._MockFileSystem()
    first, second = FeedbackObjects(store, "feedback"), FeedbackObjects(store, "feedback")
    first.check_writable()
    assert objects(store) == {}
    given = [first.store(choice(1)), second.store(choice(1, choice=1)), second.store(choice(2)), first.store(choice(2))]
    assert given == [True, False, True, False]
    names = [f"{uuid.UUID(int=number)}.jsonl" for number in (1, 2)]
    assert {name: {**found, "time": ""} for name, found in objects(store).items()} == {
        name: {**row(choice(number)), "time": ""} for number, name in enumerate(names, 1)
    }


def test_an_object_that_cannot_be_written_is_an_error() -> None:
    nowhere = FeedbackObjects(pafs._MockFileSystem(), "feedback")  # nobody has made the folder
    with pytest.raises(OSError, match="feedback"):
        nowhere.store(choice())


def test_a_place_is_a_folder_or_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("a", (tmp_path / "b").as_uri()):
        opened = open_feedback(place)
        assert isinstance(opened, Feedback)
        assert opened.store(choice())
    assert len(lines(tmp_path / "a")) == len(lines(tmp_path / "b")) == 1
    with pytest.raises(UserError, match="nowhere://bucket"):
        open_feedback("nowhere://bucket")


# --- what training makes of it


def test_the_preferences_stage_takes_pairs_and_counts_the_rest(tmp_path: Path) -> None:
    feedback = Feedback(str(tmp_path))
    given = [
        choice(1, choice=1),
        choice(2, choice="tie"),
        thumb(3, "up"),
        thumb(4, "down"),
        choice(5, kind="thumb_pair"),
        choice(6),
    ]
    for body in given:
        feedback.store(body)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-30])
    (tmp_path / "begun.jsonl").touch()  # by a process that was killed before its first row
    rows = []
    for part in sources.parts_of(str(tmp_path)):
        for chunk in read_part(pa.Table.from_pylist([part])):
            rows += convert(split_lines(chunk), to_row=layouts.preference, kept=PREFERENCES).to_pylist()
    assert [row["reason"] for row in rows] == [None, "tie", "unpaired", "unpaired", None, "undecodable_line"]
    assert [row["detail"] for row in rows[2:4]] == ["no rejected answer", "no chosen answer"]
    kept = rows[0]
    assert (kept["prompt"], kept["chosen"][0]["content"], kept["rejected"][0]["content"]) == (QUESTION, "No", "Yes")
    assert (kept["score_chosen"], kept["score_rejected"], kept["chosen_model"]) == (1.0, 0.0, "old")
