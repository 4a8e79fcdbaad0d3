"""What can be read, how rows are numbered, and what is refused before any work."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.config.data import Files, HubDataset, RowFunction
from zephyr_ray.data.io import readers, sources
from zephyr_ray.data.io.readers import read_part, split_lines
from zephyr_ray.data.io.rows import decode, raw_rows
from zephyr_ray.data.io.sources import describe_source, hub_parts, read_rows
from zephyr_ray.errors import UserError

ROWS: list[dict[str, Any]] = [{"n": 1}, {"n": 2, "text": "é\n"}, {"n": 3}]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def read(spec: str | tuple[str, ...]) -> list[tuple[str, Any]]:
    """What the reader tasks do, without Ray."""
    return read_parts(sources.parts_of(spec))


def read_parts(parts: Any) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for part in parts:
        for chunk in read_part(pa.Table.from_pylist([part])):
            rows += raw_rows(split_lines(chunk))
    return rows


def values(spec: str | tuple[str, ...]) -> list[Any]:
    return [decode(value) for _, value in read(spec)]


def test_json_lines_with_numbers_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\n  \nnot json\n{"n": "\xff"}\n{"n": 4}')
    assert read(str(path)) == [
        (f"{path}:1", b'{"n": 1}\r'),
        (f"{path}:4", b"not json"),
        (f"{path}:5", b'{"n": "\xff"}'),
        (f"{path}:6", b'{"n": 4}'),
    ]


def test_gzip_of_several_members(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(LINES) + gzip.compress(LINES))
    assert values(str(path)) == ROWS * 2


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz", "rows.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array(tmp_path: Path, name: str, indent: int | None) -> None:
    path = tmp_path / name
    text = json.dumps(ROWS, indent=indent).encode()
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert values(str(path)) == ROWS
    assert [source for source, _ in read(str(path))] == [f"{path}:{number}" for number in (1, 2, 3)]


def test_a_json_file_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(LINES)
    assert values(str(path)) == ROWS


@pytest.mark.parametrize("rest", ['{"n": 2', '{"n": 2}', '{"n": nul}]', "] trailing", ""])
def test_the_rest_of_a_broken_array_is_one_row_that_cannot_be_decoded(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"n": 1}, ' + rest)
    (source, first), *others, (_, last) = read(str(path))
    assert (source, json.loads(first)) == (f"{path}:1", {"n": 1})
    assert len(others) == (1 if rest == '{"n": 2}' else 0)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(last)


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=30) | st.integers(), max_size=3), max_size=20),
    size=st.integers(1, 64),
    kind=st.sampled_from(["lines", "array", "indented"]),
)
def test_nothing_is_lost_or_moved_where_chunks_end(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], size: int, kind: str
) -> None:
    path = tmp_path_factory.mktemp("chunks") / "rows.json"
    if kind == "lines":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        indent = 1 if kind == "indented" else None
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=indent), encoding="utf-8")
    if not rows and kind == "lines":
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_CHUNK_BYTES", size)
        found = read(str(path))
    assert [json.loads(line) for _, line in found] == rows
    assert [source for source, _ in found] == [f"{path}:{number}" for number in range(1, len(rows) + 1)]


def test_parquet_with_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"messages": [{"role": "user", "content": str(n), "name": None}]} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    assert values(str(path)) == rows
    assert [source for source, _ in read(str(path))] == [f"{path}:{number}" for number in range(1, 6)]


def test_parquet_rows_are_not_written_as_json_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"n": row["n"], "text": row.get("text")} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    monkeypatch.setattr(json, "dumps", lambda *args, **options: pytest.fail("JSON was written"))
    assert values(str(tmp_path / "rows.json")) == ROWS
    monkeypatch.setattr(json, "loads", lambda *args, **options: pytest.fail("JSON was read"))
    assert values(str(tmp_path / "rows.parquet")) == rows


def test_what_json_has_no_type_for_is_text(tmp_path: Path) -> None:
    at = datetime.datetime(2023, 10, 25, 12)
    row = {"n": 1, "when": [{"at": at}], "bytes": b"x", "price": decimal.Decimal("1.50"), "share": 0.5}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    texts = {"when": [{"at": "2023-10-25 12:00:00"}], "bytes": "b'x'", "price": "1.50"}
    assert values(str(tmp_path / "rows.parquet")) == [row | texts]


def test_folders_uris_and_several_specs(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.json").write_text(json.dumps(ROWS[:1]))
    (tmp_path / "README.md").write_text("not data")
    assert values(str(tmp_path)) == ROWS[:1] + ROWS
    assert values(f"file://{tmp_path}") == ROWS[:1] + ROWS
    assert values((f"{tmp_path}/b.json", f"{tmp_path}/deep")) == ROWS[:1] + ROWS


def test_an_empty_file_of_a_folder_takes_nothing_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl").touch()  # its writer was killed before the first row
    assert values(str(tmp_path)) == ROWS
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(UserError, match=r"b\.jsonl is empty"):
        values(str(tmp_path))


def test_a_uri_that_only_fsspec_knows() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/rows/a.jsonl", LINES)
    assert values("memory://rows/a.jsonl") == ROWS
    assert values("memory://rows") == ROWS
    before = describe_source("memory://rows")
    fsspec.filesystem("memory").pipe("/rows/a.jsonl", LINES + LINES)
    assert describe_source("memory://rows") != before


def test_datasets_of_the_hub_by_load_dataset(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(LINES)
    parts = hub_parts(str(tmp_path), "train")
    found = read_parts(parts)
    wanted = [{"n": row["n"], "text": row.get("text")} for row in ROWS] * 2
    assert [json.loads(line) for _, line in found] == wanted
    assert len({source for source, _ in found}) == 6


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere.jsonl", "nowhere.jsonl is not there"),
        ("no/such/folder", "is not there"),
        ("notes.txt", "of no known kind"),
        ("empty.jsonl", "empty.jsonl is empty"),
        ("blank.jsonl", "blank.jsonl is empty"),
        ("broken.jsonl.gz", "broken.jsonl.gz cannot be read"),
        ("broken.parquet", "broken.parquet cannot be read"),
        ("norows.parquet", "has no rows"),
        ("nothing", "nothing holds no"),
        ("nope://x/y.jsonl", "nope"),
        ((), "no data"),
        ("", "no data"),
    ],
)
def test_what_cannot_be_read_is_one_line_on_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Any, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("x")
    Path("empty.jsonl").write_text("")
    Path("blank.jsonl").write_text("\n \n")
    Path("broken.jsonl.gz").write_bytes(b"not gzip at all")
    Path("broken.parquet").write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), "norows.parquet")
    Path("nothing").mkdir()
    monkeypatch.setattr(sources, "stream", lambda *args: pytest.fail("Ray was asked to work"))
    for ask in (read_rows, describe_source) if "parquet" not in spec and "jsonl" not in spec else (read_rows,):
        with pytest.raises(UserError, match=says) as caught:
            ask(spec)
        assert "\n" not in str(caught.value)


DATASET = HubDataset(type="dataset", id="org/name", split="test", revision="v1")


def test_a_source_with_its_type_is_read_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []

    def open_hub(*names: str) -> Any:
        asked.append(names)
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset()

    monkeypatch.setattr(readers, "open_hub", open_hub)
    sources.parts_of(DATASET, "train")
    sources.parts_of("org/name@v2", "train")
    assert asked == [("org/name", "test", "v1"), ("org/name", "train", "v2")]
    with pytest.raises(UserError, match="org/name is not there"):
        sources.parts_of(Files(type="files", paths=("org/name",)))
    Path("a.jsonl").write_bytes(LINES)
    assert sources.parts_of(Files(type="files", paths=("a.jsonl",))) == sources.parts_of("a.jsonl")
    assert sources.local_files("f", DATASET) == ()


@pytest.mark.parametrize(
    ("short", "split", "typed"),
    [
        ("a.jsonl", "train", Files(type="files", paths=("a.jsonl",))),
        (("a.jsonl", "b/"), "train", Files(type="files", paths=("a.jsonl", "b/"))),
        ("org/name@v1", "test", DATASET),
    ],
)
def test_a_source_is_the_same_however_it_is_written(short: Any, split: str, typed: Any) -> None:
    plain = list(short) if isinstance(short, tuple) else short
    assert sources.semantic_source(short, split) == sources.semantic_source(typed, split) == (plain, split)


def test_what_identifies_a_function_and_a_dataset() -> None:
    function = RowFunction(type="function", function="a:b", options={"n": 1})
    assert sources.semantic_source(function) == ({"function": "a:b", "options": {"n": 1}}, "train")
    assert sources.semantic_source(DATASET, "train") == ("org/name@v1", "test")
    assert sources.semantic_source(None) == (None, "train")


def test_an_unknown_hub_id_names_both_of_what_it_could_be() -> None:
    with pytest.raises(UserError, match="org/name is no file or folder here, and as a Hugging Face dataset"):
        read_rows("org/name")
    with pytest.raises(UserError, match="org/name@main is no file or folder here"):
        describe_source("org/name@main")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.jsonl"
    path.write_bytes(LINES)
    path.chmod(0)
    with pytest.raises(UserError, match=r"secret\.jsonl cannot be read: Permission denied"):
        read_rows(str(path))


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_bytes(LINES)
    first = describe_source(str(tmp_path / "a"))
    assert first == describe_source(str(tmp_path / "b"))
    (tmp_path / "b" / "README.md").write_text("is no data")
    assert first == describe_source(str(tmp_path / "b"))
    (tmp_path / "b" / "rows.jsonl").write_bytes(LINES[1:])
    assert first != describe_source(str(tmp_path / "b"))
    one = describe_source(str(tmp_path / "a" / "rows.jsonl"))
    (tmp_path / "moved.jsonl").write_bytes(LINES)
    assert one == describe_source(str(tmp_path / "moved.jsonl"))


@pytest.mark.usefixtures("ray_cluster")
def test_streamed_by_ray(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(1000)))
    rows = read_rows((str(path), str(path))).take_all()
    assert sorted(json.loads(row["line"])["n"] for row in rows) == sorted([*range(1000)] * 2)
    assert {row["source"] for row in rows} == {f"{path}:{number}" for number in range(1, 1001)}


@pytest.mark.parametrize("kind", ["lines", "array", "parquet"])
def test_a_file_that_only_the_drivers_machine_has_is_named(tmp_path: Path, kind: str) -> None:
    gone = str(tmp_path / "gone.parquet")
    part = {"kind": kind, "uri": gone, "unit": 0, "units": 1, "first": 1, "split": "", "revision": ""}
    for read in (
        readers.read_part(pa.Table.from_pylist([part])),
        readers.read_table(pa.table({"path": [gone]}), filesystem=pafs.LocalFileSystem()),
    ):
        with pytest.raises(UserError, match=r"gone\.parquet is not there on .*; mount a volume"):
            list(read)
