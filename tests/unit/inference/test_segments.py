"""Files of replies: nothing is lost or read twice, whatever was killed between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from zephyr_ray.inference import segments

LOCAL = pafs.LocalFileSystem()


@pytest.fixture(params=["appended to", "not appended to"])
def filesystem(request: pytest.FixtureRequest) -> pafs.FileSystem:
    """A disk, and one that is not a local file system by its type."""
    return LOCAL if request.param == "appended to" else pafs.SubTreeFileSystem("/", LOCAL)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "replies")


def write(filesystem: pafs.FileSystem, folder: str, number: int, *batches: list[Any]) -> None:
    writer = segments.Writer(filesystem, folder, number)
    for batch in batches:
        writer([{"text": each} for each in batch])


def merged(filesystem: pafs.FileSystem, folder: str) -> list[Any]:
    whole = segments.merge(filesystem, folder)
    assert whole is not None
    assert [path.name for path in Path(folder).iterdir()] == [Path(whole).name]
    return [record["text"] for record in segments.read(filesystem, whole)]


def test_no_replies_are_no_file(filesystem: pafs.FileSystem, folder: str) -> None:
    segments.Writer(filesystem, folder, 1)
    assert segments.merge(filesystem, folder) is None
    assert not Path(folder).exists()


def test_tries_become_one_file_after_another(filesystem: pafs.FileSystem, folder: str) -> None:
    write(filesystem, folder, 1, ["a\n", "\u2028ä"], ["c"])
    write(filesystem, folder, 2, ["d"])
    assert merged(filesystem, folder) == ["a\n", "\u2028ä", "c", "d"]
    whole = segments.merge(filesystem, folder)
    assert segments.number_of(str(whole)) == 3
    write(filesystem, folder, 4, ["e"], ["f"])
    assert merged(filesystem, folder) == ["a\n", "\u2028ä", "c", "d", "e", "f"]
    assert merged(filesystem, folder) == ["a\n", "\u2028ä", "c", "d", "e", "f"]


def test_where_a_file_cannot_be_appended_to_each_batch_is_an_object(folder: str) -> None:
    write(pafs.SubTreeFileSystem("/", LOCAL), folder, 1, ["a"], ["b"])
    write(LOCAL, folder, 2, ["c"], ["d"])
    names = sorted(path.name for path in Path(folder).iterdir())
    assert names == ["001-00000000.jsonl", "001-00000001.jsonl", "002.jsonl"]


def test_a_line_that_a_kill_cut_off_is_left_out(folder: str) -> None:
    write(LOCAL, folder, 1, ["a", "b"])
    segment = Path(folder, "001.jsonl")
    segment.write_bytes(segment.read_bytes()[:-7])
    write(LOCAL, folder, 2, ["c"])
    assert merged(LOCAL, folder) == ["a", "c"]


def test_a_kill_before_the_old_files_go_counts_no_reply_twice(folder: str, tmp_path: Path) -> None:
    write(LOCAL, folder, 1, ["a"])
    write(LOCAL, folder, 2, ["b"])
    before = shutil.copytree(folder, tmp_path / "before")
    assert merged(LOCAL, folder) == ["a", "b"]
    shutil.copytree(before, folder, dirs_exist_ok=True)
    write(LOCAL, folder, 4, ["c"])
    assert sorted(merged(LOCAL, folder)) == ["a", "b", "c"]


def test_a_kill_while_it_is_written_loses_nothing_and_leaves_nothing(folder: str) -> None:
    write(LOCAL, folder, 1, ["a"])
    for number in (2, 7):
        Path(folder, f"00{number}.jsonl.zst.partial").write_bytes(b"half")
    assert merged(LOCAL, folder) == ["a"]


def test_what_another_driver_still_writes_is_read_when_it_comes(folder: str) -> None:
    other = pafs.SubTreeFileSystem("/", LOCAL)
    late = segments.Writer(other, folder, 1)
    late([{"text": "a"}])
    assert merged(other, folder) == ["a"]
    late([{"text": "late"}])
    assert sorted(merged(other, folder)) == ["a", "late"]
    assert sorted(merged(other, folder)) == ["a", "late"]


def test_more_objects_than_are_read_at_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_OBJECTS", 3)
    texts = [str(number) for number in range(10)]
    write(pafs.SubTreeFileSystem("/", LOCAL), folder, 1, *([text] for text in texts))
    assert merged(LOCAL, folder) == texts


def test_after_a_full_disk_the_next_line_is_whole(folder: str) -> None:
    writer = segments.Writer(LOCAL, folder, 1)
    writer([{"text": "a"}])
    file = writer._file

    class Full:
        """Takes half of what it is given, and then nothing."""

        def write(self, data: bytes) -> int:
            if len(data) < 10:
                raise OSError("no space left on device")
            return int(file.write(data[: len(data) - 5]))

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

    writer._file = Full()
    with pytest.raises(OSError, match="no space"):
        writer([{"text": "lost"}])
    writer._file = file
    writer([{"text": "b"}])
    assert merged(LOCAL, folder) == ["a", "b"]
