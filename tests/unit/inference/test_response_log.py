"""Files of replies: nothing is lost or read twice, whatever was killed between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from zephyr_ray.inference import response_log

LOCAL = pafs.LocalFileSystem()
BUCKET = pafs.SubTreeFileSystem("/", LOCAL)  # not a local file system by its type


@pytest.fixture(params=[LOCAL, BUCKET], ids=["appended to", "not appended to"])
def filesystem(request: pytest.FixtureRequest) -> pafs.FileSystem:
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "replies")


def write(filesystem: pafs.FileSystem, folder: str, *batches: list[Any]) -> None:
    """What a try does."""
    writer = response_log.Writer(filesystem, folder)
    for batch in batches:
        writer([{"text": each} for each in batch])


def texts(filesystem: pafs.FileSystem, folder: str) -> list[Any]:
    return sorted(record["text"] for record in response_log.read(filesystem, folder))


def gathered(filesystem: pafs.FileSystem, folder: str) -> list[Any]:
    """What is there, which gathering does not change; it is in compressed files then, and there is nothing else."""
    before = texts(filesystem, folder)
    response_log.gather(filesystem, folder)
    assert texts(filesystem, folder) == before
    assert {"".join(path.suffixes) for path in Path(folder).iterdir()} == {".jsonl.zst"}
    return before


def test_no_replies_are_no_file(filesystem: pafs.FileSystem, folder: str) -> None:
    response_log.Writer(filesystem, folder)
    response_log.gather(filesystem, folder)
    assert texts(filesystem, folder) == []
    assert not Path(folder).exists()


def test_every_try_is_read_and_each_stage_gathers_its_own(filesystem: pafs.FileSystem, folder: str) -> None:
    write(filesystem, folder, ["a\n", "\u2028"], ["c"])
    write(filesystem, folder, ["d"])
    assert gathered(filesystem, folder) == ["a\n", "c", "d", "\u2028"]
    assert len(list(Path(folder).iterdir())) == 1
    write(filesystem, folder, ["e"], ["f"])
    assert gathered(filesystem, folder) == ["a\n", "c", "d", "e", "f", "\u2028"]
    assert len(list(Path(folder).iterdir())) == 2
    assert gathered(filesystem, folder) == ["a\n", "c", "d", "e", "f", "\u2028"]


def test_where_a_file_cannot_be_appended_to_each_batch_is_an_object(folder: str) -> None:
    write(BUCKET, folder, ["a"], ["b"])
    write(LOCAL, folder, ["c"], ["d"])
    assert len(list(Path(folder).glob("*-0000000[01].jsonl"))) == 2
    assert len(list(Path(folder).iterdir())) == 3


def test_a_line_that_a_kill_cut_off_is_left_out(folder: str) -> None:
    write(LOCAL, folder, ["a", "b"])
    (segment,) = Path(folder).iterdir()
    segment.write_bytes(segment.read_bytes()[:-7])
    write(LOCAL, folder, ["c"])
    assert gathered(LOCAL, folder) == ["a", "c"]


def test_a_kill_before_the_old_files_go_counts_no_reply_twice(folder: str, tmp_path: Path) -> None:
    write(LOCAL, folder, ["a"])
    write(LOCAL, folder, ["b"])
    before = shutil.copytree(folder, tmp_path / "before")
    assert gathered(LOCAL, folder) == ["a", "b"]
    shutil.copytree(before, folder, dirs_exist_ok=True)
    write(LOCAL, folder, ["c"])
    assert gathered(LOCAL, folder) == ["a", "b", "c"]


def test_a_kill_while_it_is_written_loses_nothing_and_leaves_nothing(folder: str) -> None:
    write(LOCAL, folder, ["a"])
    Path(folder, "f00d.jsonl.zst.partial").write_bytes(b"half")
    assert gathered(LOCAL, folder) == ["a"]


def test_two_drivers_at_once_write_over_nothing_and_are_both_read(folder: str) -> None:
    one, other = response_log.Writer(BUCKET, folder), response_log.Writer(BUCKET, folder)
    one([{"text": "a"}])
    other([{"text": "b"}])
    assert gathered(BUCKET, folder) == ["a", "b"]
    one([{"text": "late"}])
    assert gathered(BUCKET, folder) == ["a", "b", "late"]


def test_more_objects_than_are_read_at_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_log, "_OBJECTS", 3)
    numbers = [str(number) for number in range(10)]
    write(BUCKET, folder, *([text] for text in numbers))
    assert gathered(LOCAL, folder) == numbers


def test_after_a_full_disk_the_next_line_is_whole(folder: str) -> None:
    writer = response_log.Writer(LOCAL, folder)
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
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            writer([{"text": "lost"}])
    writer._file = file
    writer([{"text": "b"}])
    assert gathered(LOCAL, folder) == ["a", "b"]
