"""Of rows with one id, the one with the smallest source stays, however the rows lie in files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import DIALOGUES


def write(root: Path, files: list[list[tuple[str, str]]]) -> tuple[Artifact, Report]:
    """An artifact whose files hold rows of (id, source)."""
    artifact = Run(str(root)).artifact("dialogues")
    for folder in ("data", "dropped"):
        (Path(artifact.path) / folder).mkdir(parents=True, exist_ok=True)
    report = Report()
    for number, rows in enumerate(files):
        name = f"data/{number}.parquet"
        table = [{"dialogue_id": row_id, "messages": [], "source": source} for row_id, source in rows]
        pq.write_table(pa.Table.from_pylist(table, schema=DIALOGUES), Path(artifact.path) / name)
        report.files[name] = len(rows)
        report.rows_in += len(rows)
        report.rows_out += len(rows)
    return artifact, report


def rows_of(artifact: Artifact, report: Report, folder: str, *columns: str) -> list[tuple]:
    files = [Path(artifact.path) / name for name in report.files if name.startswith(folder)]
    return [tuple(row[column] for column in columns) for file in files for row in pq.read_table(file).to_pylist()]


def test_by_hand(tmp_path: Path) -> None:
    artifact, before = write(tmp_path, [[("a", "f:3"), ("b", "f:1")], [("a", "f:2")], [("a", "f:4")]])
    after = drop_repeated(artifact, before, "dialogue_id")
    assert sorted(rows_of(artifact, after, "data", "dialogue_id", "source")) == [("a", "f:2"), ("b", "f:1")]
    assert sorted(rows_of(artifact, after, "dropped", "source", "reason", "detail")) == [
        ("f:3", "repeated", "a"),
        ("f:4", "repeated", "a"),
    ]
    assert (after.rows_in, after.rows_out, after.dropped) == (4, 2, {"repeated": 2})
    assert "data/2.parquet" not in after.files


def test_nothing_is_written_where_nothing_repeats(tmp_path: Path) -> None:
    artifact, before = write(tmp_path, [[("a", "f:1")], [("b", "f:2")]])
    assert drop_repeated(artifact, before, "dialogue_id") is before


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.integers(1, 4))
def test_the_same_rows_stay_in_any_partition(tmp_path_factory, ids: list[str], files: int) -> None:
    rows = [(row_id, f"f:{number}") for number, row_id in enumerate(ids)]
    left = []
    for parts in (1, files):
        artifact, before = write(tmp_path_factory.mktemp("run"), [rows[part::parts] for part in range(parts)])
        after = drop_repeated(artifact, before, "dialogue_id")
        assert after.rows_in == after.rows_out + sum(after.dropped.values()) == len(rows) or not after.dropped
        left.append(sorted(rows_of(artifact, after, "data", "dialogue_id", "source")))
    assert left[0] == left[1]
    assert len(left[0]) == len(set(ids))
