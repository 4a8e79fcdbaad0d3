"""Going on, counting and repeats: linear in the rows, and flat on the driver. Operations are counted, not seconds.

The seconds are in benchmarks/scale.py.
"""

from __future__ import annotations

import hashlib
import itertools
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from zephyr_ray.data import scored_rows
from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.io import datasink, file_tasks, id_sets, keys, readers, resume, rewrite, sources, writer
from zephyr_ray.data.io.histogram import Histogram
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import DROPPED, Reason

ROWS = pa.schema([("id", pa.string()), ("text", pa.string()), ("source", pa.string())])


def ids(numbers: range) -> list[str]:
    return [hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest() for number in numbers]


def write(artifact: Artifact, numbers: range, per_file: int) -> dict[str, int]:
    """Rows by their numbers, in files, and how many rows each holds."""
    files = {}
    for folder in ("data", "dropped"):
        Path(artifact.path, folder).mkdir(parents=True, exist_ok=True)
    for first in range(0, len(numbers), per_file):
        part = numbers[first : first + per_file]
        text = [str(number) for number in part]
        name = f"data/{first:08d}.parquet"
        pq.write_table(pa.table([ids(part), text, text], schema=ROWS), Path(artifact.path, name))
        files[name] = len(part)
    return files


def finished(run: Run, numbers: range, per_file: int, stage: str = "prompts") -> Artifact:
    artifact = run.artifact(stage)
    artifact.begin("f")
    entries = [{"name": name, "rows": rows} for name, rows in write(artifact, numbers, per_file).items()]
    artifact.finish({"fingerprint": "f", "files": entries})
    return artifact


def as_written(rows: pa.Table) -> pa.Table:
    schema = mixed_schema(ROWS)
    missing = pa.nulls(len(rows), pa.string())
    return pa.table([rows[name] if name in rows.column_names else missing for name in schema.names], schema=schema)


def characters(kept: pa.Table) -> dict[str, np.ndarray]:
    return {"characters": np.array([len(text) for text in kept["text"].to_pylist()])}


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many tasks were started, by what they call."""
    started: Counter[str] = Counter()
    start = file_tasks.start

    def counted(function: Callable[..., Any], calls: Any, results: int = 1) -> list[Any]:
        started[function.__name__] += len(calls)
        return start(function, calls, results)

    monkeypatch.setattr(file_tasks, "start", counted)
    return started


def test_rows_are_counted_without_opening_a_file(tmp_path: Path) -> None:
    artifact = finished(Run(str(tmp_path)), range(20), 5)
    for path in artifact.files():
        Path(path).write_bytes(b"")
    assert sources.count_rows(artifact) == 20


def test_rows_that_a_manifest_does_not_tell_are_counted_in_the_files(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("prompts")
    artifact.begin("f")
    artifact.finish({"fingerprint": "f", "files": [*write(artifact, range(23), 5)]})
    assert sources.count_rows(artifact) == 23


@pytest.mark.usefixtures("ray_cluster")
def test_a_try_goes_on_with_the_rows_that_are_left(tmp_path: Path, tasks: Counter[str]) -> None:
    run = Run(str(tmp_path))
    source, artifact = finished(run, range(60), 10), run.artifact("stage")
    artifact.begin("f")
    for first, end in itertools.pairwise((0, 25, 60)):
        done = writer.written_ids(artifact, "id")
        left = resume.rows_left(source, done, "id")
        assert sorted(int(row["text"]) for row in left.take_all()) == [*range(first, 60)]
        some = left.filter(lambda row, end=end: int(row["text"]) < end).map_batches(as_written, batch_format="pyarrow")
        report = writer.write(some, artifact, ROWS, measure=characters, keep=True)
        assert (len(done), report.rows_in, report.rows_out) == (first, end, end)
        assert report.stats["characters"]["sum"] == sum(len(str(number)) for number in range(end))
        if end < 60:
            with pytest.raises(RuntimeError, match=r"holds 60 rows; 25 are accounted for"):
                resume.check_exactly_once(source, artifact, report, "id")
            artifact = run.artifact("stage")
            assert artifact.begin("f")
    resume.check_exactly_once(source, artifact, report, "id")
    assert tasks["_merge"] == 3  # the ids are put together once for each look, not for each block
    write(artifact, range(3), 3)
    with pytest.raises(RuntimeError, match="of 63 written ones 3 are there twice"):
        resume.check_exactly_once(source, artifact, report, "id")


def test_of_a_file_that_is_done_only_the_ids_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = finished(Run(str(tmp_path)), range(20), 10)
    done = keys.sorted_keys(keys.keys_of(pa.array(ids(range(14)))))
    read: list[str] = []

    class Watched(pq.ParquetFile):
        def iter_batches(self, *args: Any, **kwargs: Any) -> Any:
            read.append("rows")
            return super().iter_batches(*args, **kwargs)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    left = [
        row["text"]
        for path in source.files()
        for table in readers.read_rows_left(
            pa.table({"path": [path]}),
            filesystem=pafs.LocalFileSystem(),
            id_column="id",
            is_done=lambda column: keys.find([done], keys.keys_of(column))[0],
        )
        for row in table.to_pylist()
    ]
    assert left == [str(number) for number in range(14, 20)]
    assert read == ["rows"]


def test_earlier_files_tell_what_was_measured_of_them(tmp_path: Path) -> None:
    sink = datasink.RowSink(pafs.LocalFileSystem(), str(tmp_path), ROWS, characters)
    sink.keeps_histograms = True
    for folder in ("data", "dropped"):
        (tmp_path / folder).mkdir()
    table = as_written(pa.table([ids(range(100)), [*map(str, range(100))], [*map(str, range(100))]], schema=ROWS))

    class Task:
        task_idx = 0

    written = sink.write(iter([table]), Task())
    paths = [str(tmp_path / name) for name in written.files]

    def never(kept: pa.Table) -> dict[str, np.ndarray]:
        raise AssertionError("rows are read")

    counted = datasink.count_files(paths, pafs.LocalFileSystem(), str(tmp_path), never)
    assert counted.histograms["characters"].state() == written.histograms["characters"].state()
    assert (counted.rows_in, counted.rows_out, counted.files) == (100, 100, written.files)
    (rows,) = readers.read_table(pa.table({"path": paths}), filesystem=pafs.LocalFileSystem())
    assert rows.schema.metadata is None


def test_a_histogram_survives_json() -> None:
    histogram = Histogram()
    histogram.count(np.array([0, 3, 3, 1 << 40]))
    assert Histogram.of_state(histogram.state()).summary() == histogram.summary()
    assert histogram.bins == {0: 1, 3: 2, 1 << 40: 1}


def test_a_task_that_rewrites_twice_finds_the_same(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("stage")
    files = write(artifact, range(20), 10)

    def is_odd_and_small(number: int, rows: pa.Table) -> np.ndarray:
        return np.array([int(text) % 2 == 1 and int(text) < 10 for text in rows["text"].to_pylist()])

    numbered = list(enumerate(files))
    call = (artifact, numbered, 0, Reason.REPEATED, is_odd_and_small, ["text"], "id", DROPPED)
    first, second = rewrite._rewrite_files(*call), rewrite._rewrite_files(*call)
    assert first == second
    assert [(each.old, each.left, each.gone) for each in first[0]] == [("data/00000000.parquet", 5, 5)]
    assert sum(first[1].values()) == 5


@pytest.mark.usefixtures("ray_cluster")
def test_ten_times_the_rows_are_as_many_tasks_and_no_more_on_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Counter[str]
) -> None:
    monkeypatch.setattr(file_tasks, "groups", lambda items, most=4, groups=file_tasks.groups: groups(items, most))
    started, held = [], []
    for rows in (10_000, 100_000):
        artifact = Run(str(tmp_path / str(rows))).artifact("stage")
        numbers = range(rows)
        files = write(artifact, numbers, rows // 50)
        tasks.clear()
        tracemalloc.start()
        found = id_sets.of_files([f"{artifact.path}/{name}" for name in files], artifact.run.filesystem, "id")
        assert (found.rows, found.size, found.repeated.size) == (rows, rows, 0)
        report = Report(rows_in=rows, rows_out=rows, files=files)
        assert drop_repeated(artifact, report, "id") is report
        started.append(dict(tasks))
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert started[0] == started[1] == {"_read_keys": 8, "_merge": 2}
    assert held[1] < held[0] + (1 << 20)  # 100,000 ids as text are ten times that


def test_files_of_a_long_stage_are_few() -> None:
    assert [writer.rows_per_file(rows) for rows in (0, 10**5, 4 * 10**6, 10**8)] == [512, 512, 1953, 4096]
    assert [scored_rows.rows_per_file(rows, 16) for rows in (10, 10**6, 10**7)] == [64, 96, 992]
