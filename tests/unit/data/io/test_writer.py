"""Rows that are written: every one kept or dropped, once, whatever the partitions and whichever task dies."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray.data.datasource import WriteResult

from tests.making import make_pairs
from zephyr_ray.data.io import datasink, sources, writer
from zephyr_ray.data.io.datasink import RowSink
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.writer import Report
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run

KEPT = pa.schema([("id", pa.string()), ("length", pa.int32())])


def row(number: int, reason: str | None = None) -> dict[str, Any]:
    """A kept row, or a dropped one of this reason."""
    if reason:
        return {"source": f"f:{number}", "reason": reason, "detail": "d"}
    return {"id": str(number), "length": number, "source": f"f:{number}"}


def block(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=mixed_schema(KEPT))


def lengths(kept: pa.Table) -> dict[str, np.ndarray]:
    return {"length": kept["length"].to_numpy()}


def written(filesystem: pafs.FileSystem, path: str, folder: str) -> list[dict[str, Any]]:
    infos = filesystem.get_file_info(pafs.FileSelector(f"{path}/{folder}"))
    tables = [pq.read_table(info.path, filesystem=filesystem) for info in sorted(infos, key=lambda info: info.path)]
    return [row for table in tables for row in table.to_pylist()]


def write_tasks(rows_sink: RowSink, tasks: Sequence[Sequence[pa.Table]]) -> Report:
    """What Ray does with a sink: one `write` for each task, then their results together."""
    results = [rows_sink.write(iter(blocks), SimpleNamespace(task_idx=index)) for index, blocks in enumerate(tasks)]
    seen = sum(each.num_rows for blocks in tasks for each in blocks)
    rows_sink.on_write_complete(WriteResult(seen, 0, results))
    assert rows_sink.report is not None
    return rows_sink.report


@pytest.fixture(params=["local", "object_store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[pafs.FileSystem, str]:
    filesystem = pafs.LocalFileSystem() if request.param == "local" else pafs._MockFileSystem()
    path = str(tmp_path) if request.param == "local" else "run/stage"
    for folder in ("data", "dropped"):
        filesystem.create_dir(f"{path}/{folder}", recursive=True)
    return filesystem, path


def test_kept_and_dropped_rows_go_to_their_folders(place: tuple[pafs.FileSystem, str]) -> None:
    report = write_tasks(
        RowSink(*place, KEPT, lengths),
        [[block([row(1), row(2, "tie")]), block([row(5)])], [block([row(4, "empty"), row(6, "tie")])], [block([])]],
    )
    assert (report.rows_in, report.rows_out, report.dropped) == (5, 2, {"tie": 2, "empty": 1})
    assert sorted(report.files) == [
        "data/000000-000.parquet",
        "dropped/000000-000.parquet",
        "dropped/000001-000.parquet",
    ]
    assert written(*place, "data") == [{"id": "1", "length": 1}, {"id": "5", "length": 5}]
    assert [(each["source"], each["reason"]) for each in written(*place, "dropped")] == [
        ("f:2", "tie"),
        ("f:4", "empty"),
        ("f:6", "tie"),
    ]
    assert report.stats["length"]["sum"] == 6
    assert (report.stats["length"]["min"], report.stats["length"]["max"]) == (1, 5)


def test_a_task_that_runs_twice_writes_the_same_files(place: tuple[pafs.FileSystem, str]) -> None:
    rows_sink = RowSink(*place, KEPT)
    blocks = [block([row(1), row(2, "tie")])]
    rows_sink.write(iter(blocks), SimpleNamespace(task_idx=0))  # its worker dies before the result arrives
    report = write_tasks(rows_sink, [blocks])
    assert (report.rows_in, report.rows_out) == (2, 1)
    assert len(written(*place, "data")) == len(written(*place, "dropped")) == 1


def test_large_tasks_write_several_files(place: tuple[pafs.FileSystem, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasink, "_FILE_BYTES", 1)
    report = write_tasks(RowSink(*place, KEPT), [[block([row(1)]), block([row(2)])]])
    assert [*report.files] == ["data/000000-000.parquet", "data/000000-001.parquet"]


@given(
    reasons=st.lists(st.sampled_from([None, None, "tie", "empty"]), max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_any_partitioning_gives_the_same_rows_and_counts(reasons: list[str | None], cuts: list[int]) -> None:
    rows = [row(number, reason) for number, reason in enumerate(reasons)]
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [[block(rows[start:stop])] for start, stop in itertools.pairwise(edges)]
    outcomes = []
    for tasks in (parts, [[each for part in parts for each in part]]):
        filesystem = pafs._MockFileSystem()
        for folder in ("data", "dropped"):
            filesystem.create_dir(f"a/{folder}", recursive=True)
        report = write_tasks(RowSink(filesystem, "a", KEPT, lengths), tasks)
        assert report.rows_in == report.rows_out + sum(report.dropped.values()) == len(rows)
        ids = sorted(each["id"] for each in written(filesystem, "a", "data"))
        outcomes.append((ids, report.rows_out, report.dropped, report.stats))
    assert outcomes[0] == outcomes[1]


def test_rows_that_do_not_add_up_are_an_error(place: tuple[pafs.FileSystem, str]) -> None:
    rows_sink = RowSink(*place, KEPT)
    result = rows_sink.write(iter([block([row(1)])]), SimpleNamespace(task_idx=0))
    with pytest.raises(RuntimeError, match="lost or counted twice"):
        rows_sink.on_write_complete(WriteResult(2, 0, [result]))
    result.rows_out = 0
    with pytest.raises(RuntimeError, match="lost or counted twice"):
        rows_sink.on_write_complete(WriteResult(1, 0, [result]))


class Longer:
    """How many rows are longer than 1."""

    def __init__(self, kept: pa.Table):
        self.rows = sum(length > 1 for length in kept["length"].to_pylist())

    def add(self, other: Longer) -> None:
        self.rows += other.rows


def twice(raw: pa.Table) -> tuple[pa.Table, Longer]:
    """Two rows for each, a kept one and, of odd numbers, a dropped one."""
    numbers = raw["n"].to_pylist()
    rows = [each for n in numbers for each in (row(n), row(n + 100, "tie" if n % 2 else None))]
    table = block(rows)
    return table, Longer(table.filter(table["reason"].is_null()))


def test_rows_are_made_and_counted_where_they_are_written(place: tuple[pafs.FileSystem, str]) -> None:
    """What an earlier try wrote is counted too; a task whose result never arrives is not."""
    rows_sink = RowSink(*place, KEPT, make=twice, count=Longer)
    first = write_tasks(rows_sink, [[pa.table({"n": [1]}), pa.table({"n": pa.array([], pa.int64())})]])
    assert (first.rows_in, first.added, first.rows_out, first.dropped) == (1, 1, 1, {"tie": 1})
    assert first.tally.rows == 0
    again = RowSink(*place, KEPT, make=twice, count=Longer, prefix="001-")
    again.count_earlier([f"{place[1]}/data/000000-000.parquet"])
    again.write(iter([pa.table({"n": [5]})]), SimpleNamespace(task_idx=0))
    report = write_tasks(again, [[pa.table({"n": [2, 3]})], [pa.table({"n": [4]})]])
    assert (report.rows_in, report.added, report.rows_out, report.dropped) == (4, 3, 6, {"tie": 1})
    assert report.tally.rows == 5


def test_a_kept_row_without_an_id_is_an_error(place: tuple[pafs.FileSystem, str]) -> None:
    with pytest.raises(RuntimeError, match="1 kept rows have no id"):
        RowSink(*place, KEPT).write(iter([block([{"length": 1}])]), SimpleNamespace(task_idx=0))


# --- on Ray


class Counting:
    """A progress handle that writes to a file, as it may be called in any process."""

    def __init__(self, path: Path):
        self.path = str(path)

    def add(self, rows: int) -> None:
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(f"{rows}\n")


def _make_rows(batch: pa.Table, *, die_once: str | None = None, refuse: str | None = None) -> pa.Table:
    if die_once is not None and 3 in batch["n"].to_pylist() and not os.path.exists(die_once):
        Path(die_once).touch()
        os._exit(1)
    if refuse is not None:
        raise UserError(refuse)
    return block([row(n, "tie" if n % 4 == 0 else None) for n in batch["n"].to_pylist()])


def _numbers(count: int, **how: Any) -> ray.data.Dataset:
    return ray.data.from_items([{"n": n} for n in range(count)], override_num_blocks=4).map_batches(
        _make_rows, fn_kwargs=how, batch_format="pyarrow"
    )


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_dies_changes_nothing(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path / "run")).artifact("stage")
    for how in ({}, {"die_once": str(tmp_path / "died")}):
        report = writer.write(_numbers(40, **how), artifact, KEPT, measure=lengths, progress=Counting(tmp_path / "p"))
        assert (report.rows_in, report.rows_out, report.dropped) == (40, 30, {"tie": 10})
        ids = [each["id"] for each in written(artifact.run.filesystem, artifact.path, "data")]
        assert sorted(ids, key=int) == [str(n) for n in range(40) if n % 4]
    assert (tmp_path / "died").exists()
    assert sum(int(line) for line in (tmp_path / "p").read_text().split()) >= 80


@pytest.mark.usefixtures("ray_cluster")
def test_only_what_an_earlier_try_is_known_to_have_written_counts(tmp_path: Path) -> None:
    """A driver that was taken over may have written more."""
    first, second, third = (Run(str(tmp_path)).artifact("stage") for _ in range(3))
    for epoch, artifact in enumerate((first, second, third), 1):
        artifact.run.epoch = epoch
    first.begin("f")
    with pytest.raises(UserError, match=r"^the source breaks off$"):
        writer.write(_numbers(8, refuse="the source breaks off"), first, KEPT, keep=True)
    writer.write(_numbers(8), first, KEPT, keep=True)
    second.begin("f")
    late = tmp_path / "stage" / "data" / "e000001-999999-000.parquet"
    late.write_bytes(b"late")
    report = writer.write(_numbers(4), second, KEPT, keep=True)
    assert (report.rows_in, report.rows_out) == (6 + 4, 6 + 3)
    assert sorted({name.split("-")[0] for name in report.files}) == ["data/e000001", "data/e000002", "dropped/e000002"]
    assert sum(rows for name, rows in report.files.items() if name.startswith("data/")) == 9
    with pytest.raises(UserError, match="is made by another command now"):
        writer.write(_numbers(4), first, KEPT, keep=True)


@pytest.mark.usefixtures("ray_cluster")
def test_a_gzip_file_that_breaks_off_is_the_users_error(tmp_path: Path) -> None:
    import gzip
    import random

    from zephyr_ray.config.data import Preferences
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.config.training import SFT

    rng = random.Random(0)
    lines = "".join(f'{{"prompt": "{rng.random()}", "chosen": "a", "rejected": "b"}}\n' for _ in range(50_000))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode(), 1)[:-1000])
    recipe = Recipe(sft=SFT(), preferences=Preferences(train=str(path)))
    with pytest.raises(UserError, match=r"rows\.jsonl\.gz breaks off in the middle"):
        make_pairs(recipe, Run(str(tmp_path / "run")).artifact("preferences"))


@pytest.mark.usefixtures("ray_cluster")
def test_rows_that_do_not_arrive_are_noticed(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("stage")
    report = writer.write(_numbers(8), artifact, KEPT)
    artifact.finish({"fingerprint": "f", "files": [*report.files]})
    assert sources.read_artifact(artifact).count() == report.rows_out == 6
    sources.check_all_read(artifact, 6)
    with pytest.raises(RuntimeError, match="holds 6 rows, and 5 arrived"):
        sources.check_all_read(artifact, 5)


# --- histograms


@given(st.lists(st.integers(0, 1 << 40), min_size=1), st.integers(0, 50))
def test_histograms_add_up_and_answer_quantiles(values: list[int], cut: int) -> None:
    whole, first, second = Histogram(), Histogram(), Histogram()
    whole.count(np.array(values))
    first.count(np.array(values[:cut], dtype=np.int64))
    second.count(np.array(values[cut:], dtype=np.int64))
    first.add(second)
    summary = whole.summary()
    assert first.summary() == summary
    assert (summary["count"], summary["sum"]) == (len(values), sum(values))
    assert (summary["min"], summary["max"]) == (min(values), max(values))
    exact = sorted(values)[-(-len(values) // 2) - 1]
    assert exact * 0.999 <= summary["p50"] <= exact


def test_quantiles_by_hand() -> None:
    histogram = Histogram()
    histogram.count(np.arange(1, 101))
    assert [histogram.quantile(share) for share in (0.01, 0.5, 0.9, 0.99, 1.0)] == [1, 50, 90, 99, 100]
    assert Histogram().summary()["p50"] == 0
