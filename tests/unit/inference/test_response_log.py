"""Files of replies: nothing is lost or read twice, whatever was killed or paused between."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zephyr_ray.inference import create_file, response_gather, response_log, response_writer
from zephyr_ray.inference.response_index import Index

LOCAL = pafs.LocalFileSystem()
Place = tuple[pafs.FileSystem, str]


@pytest.fixture
def disk(tmp_path: Path) -> Place:
    return LOCAL, str(tmp_path / "replies")


@pytest.fixture(scope="module", autouse=True)
def nobody_waits_for_the_disk() -> Iterator[None]:
    """What a process that is killed has written is there without it, and thousands of waits would take minutes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def store(bucket: str) -> Place:
    filesystem, path = pafs.FileSystem.from_uri(bucket)
    return filesystem, f"{path}/replies"


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def line(text: str, usd: Any = 0.5) -> bytes:
    answer = {"content": text, "tokens": 2}
    return (
        json.dumps({"prompt_id": text, "key": "k", "answer": answer, "prompt_tokens": 3, "usd": usd}).encode() + b"\n"
    )


def write(place: Place, *batches: list[str], epoch: int = 0) -> None:
    """What a driver does."""
    writer = response_writer.Writer(*place, epoch)
    for batch in batches:
        writer([line(text) for text in batch])


def texts(place: Place) -> list[str]:
    return sorted(record["answer"]["content"] for record in response_log.read(*place))


def names(place: Place) -> list[str]:
    filesystem, folder = place
    return sorted(info.base_name for info in filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True)))


def gathered(place: Place, epoch: int = 9) -> list[str]:
    """What is there, which gathering does not change: it is in parts then, found in them, and there is nothing else."""
    before = texts(place)
    response_gather.gather(*place, epoch)
    assert texts(place) == before
    found = response_log.listing(*place)
    assert (found.loose, found.spent, found.stray) == ([], [], [])
    assert sum(commit.totals["requests"] for commit in found.commits) == len(before)
    index = Index(*place)
    index.load(part for commit in found.commits for part in commit.parts)
    assert index.find([*before, "not there"]) == {text: {"k": {"content": text, "tokens": 2}} for text in before}
    return before


def test_no_replies_are_no_file(place: Place) -> None:
    response_writer.Writer(*place)
    response_gather.gather(*place)
    assert texts(place) == names(place) == []


def test_every_try_is_read_and_each_stage_gathers_its_own(place: Place) -> None:
    write(place, ["a\n", "\u2028"], ["c"])
    write(place, ["d"], epoch=1)
    assert gathered(place) == ["a\n", "c", "d", "\u2028"]
    assert len(names(place)) == 3
    write(place, ["e"], ["f"], epoch=2)
    assert gathered(place) == gathered(place) == ["a\n", "c", "d", "e", "f", "\u2028"]
    assert len(names(place)) == 6
    assert [name for name in names(place) if name.startswith("gathered")] == [
        "gathered-000001.json",
        "gathered-000002.json",
    ]


def test_names_have_the_epoch(disk: Place, store: Place) -> None:
    for place in (disk, store):
        write(place, ["a"], ["b"], epoch=12)
        assert {name[:7] for name in names(place)} == {"000012-"}
    assert len(names(disk)) == 1
    assert [name[-15:] for name in names(store)] == ["-00000000.jsonl", "-00000001.jsonl"]


def test_files_of_a_higher_epoch_are_left_to_their_driver(place: Place) -> None:
    write(place, ["old"], epoch=3)
    write(place, ["new"], epoch=4)
    response_gather.gather(*place, 3)
    assert [source.epoch for source in response_log.listing(*place).loose] == [4]
    assert texts(place) == ["new", "old"]


def test_replies_are_in_parts_of_bounded_size(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_gather, "_FRAME_BYTES", 200)
    monkeypatch.setattr(response_gather, "_PART_BYTES", 1000)
    numbers = [f"{number:03d}" for number in range(60)]
    write(place, numbers[:40], numbers[40:])
    assert gathered(place) == numbers
    parts = [name for name in names(place) if name.endswith(".zst")]
    assert len(parts) > 3
    for part in parts:
        with place[0].open_input_stream(f"{place[1]}/{part}") as stream:
            assert len(stream.read()) < 1000 + 300


def test_a_commit_names_a_bounded_number_of_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_gather, "_COMMIT_FILES", 3)
    texts_written = [str(number) for number in range(8)]
    for text in texts_written:
        write(place, [text])
    assert gathered(place) == texts_written
    assert [len(commit.files) for commit in response_log.listing(*place).commits] == [3, 3, 2]


def test_a_line_that_a_kill_cut_off_is_left_out(disk: Place) -> None:
    write(disk, ["a", "b"])
    (path,) = Path(disk[1]).iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    write(disk, ["c"])
    assert gathered(disk) == ["a", "c"]


def test_lines_that_are_no_records_are_kept_and_counted_with_one_warning(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    writer = response_writer.Writer(*place)
    bad = [b"garbage\n", b"\xff\n", b"[1]\n", b'{"prompt_id": 7}\n', b'{"repeats": [7]}\n', b"\n"]
    surrogate = line("half of a pair \ud83d")
    (name, _) = writer([line("a"), *bad, surrogate, line("b")])
    with caplog.at_level(logging.WARNING):
        assert gathered(place) == ["a", "b", "half of a pair \ud83d"]
    said = [record.getMessage() for record in caplog.records if record.name == response_gather.__name__]
    assert said == [f"{name}{'.sealed' if place[0] is LOCAL else ''}: 6 lines are not replies; they are kept, not used"]
    (commit,) = response_log.listing(*place).commits
    assert commit.unreadable == 6


def test_totals_never_fall() -> None:
    totals = response_log.no_totals()
    for strange in (-1e7, "5", None, float("nan"), float("inf"), 10**400, [1], 0.25):
        record = {"prompt_id": "p", "key": "k", "answer": {"tokens": strange}, "prompt_tokens": strange, "usd": strange}
        response_log.count(totals, record)
    assert totals == {"requests": 8, "prompt_tokens": 0.25, "tokens": 0.25, "usd": 0.25}


# --- files of an earlier version


def test_files_of_an_earlier_version_are_read_and_gathered(disk: Place) -> None:
    folder = Path(disk[1])
    folder.mkdir()
    merged, left, plain, small = (f"{number:016x}" for number in range(4))
    Path(folder, f"{left}.jsonl").write_bytes(line("a"))
    content = json.dumps({"files": [f"{left}.jsonl", "gone.jsonl"]}).encode() + b"\n" + line("a") + line("b")
    Path(folder, f"{merged}.jsonl.zst").write_bytes(pa.Codec("zstd").compress(content, asbytes=True))
    Path(folder, f"{plain}.jsonl").write_bytes(line("c"))
    Path(folder, f"{small}-00000007.jsonl").write_bytes(line("d"))
    Path(folder, "f00d.jsonl.zst.partial").write_bytes(b"half")
    assert gathered(disk) == ["a", "b", "c", "d"]
    assert all(name.startswith(("gathered-", "000009-")) for name in names(disk))


# --- a second driver


def test_what_a_paused_driver_writes_later_is_read_once(place: Place) -> None:
    paused = response_writer.Writer(*place, 1)
    paused([line("a")])
    assert gathered(place, 2) == ["a"]
    paused([line("b")])
    paused([line("c")])
    assert gathered(place, 2) == ["a", "b", "c"]


def test_what_was_written_to_a_sealed_file_is_read_once_whoever_read_it(disk: Place) -> None:
    _, folder = disk
    for read_after in (0, 1, 2, 3):
        paused = response_writer.Writer(*disk, 1)
        own = [f"{read_after}{letter}" for letter in "abcde"]
        paused([line(own[0])])
        (source,) = response_log.listing(*disk).loose
        sealed = Path(folder, response_log.seal(folder, source).name)
        paused([line(text) for text in own[1:4]])  # to the sealed file, and again to a new one
        sealed.write_bytes(b"".join(sealed.read_bytes().splitlines(True)[: 1 + read_after]))  # what a reader has seen
        paused([line(own[4])])
        assert [text for text in texts(disk) if text.startswith(str(read_after))] == own
        assert [text for text in gathered(disk, 2) if text.startswith(str(read_after))] == own


def test_a_file_that_is_sealed_again_and_again_is_read_once(disk: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = response_writer.Writer(*disk, 1)
    writer([line("a")])
    check, seals = writer._keeps_its_name, [1, 1, 0, 1, 0]

    def sealed_just_before() -> bool:
        if seals.pop(0):
            (source,) = [each for each in response_log.listing(*disk).loose if each.may_be_open]
            response_log.seal(disk[1], source)
        return check()

    monkeypatch.setattr(writer, "_keeps_its_name", sealed_just_before)
    writer([line("b"), line("c")])
    writer([line("d")])
    assert seals == []
    assert len(names(disk)) == 4
    assert gathered(disk, 2) == ["a", "b", "c", "d"]


def test_a_driver_that_gathers_what_another_has_gathered_gives_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one gathers while this one is about to commit."""
    write(place, ["a"], ["b"])
    create = create_file.create_file

    def paused(*arguments: Any) -> bool:
        monkeypatch.setattr(response_gather, "create_file", create)
        response_gather.gather(*place, 5)
        write(place, ["c"])
        return create(*arguments)

    monkeypatch.setattr(response_gather, "create_file", paused)
    response_gather.gather(*place, 4)
    assert gathered(place) == ["a", "b", "c"]


def test_of_two_that_create_a_file_one_does(place: Place) -> None:
    filesystem, folder = place
    filesystem.create_dir(folder)
    assert create_file.create_file(filesystem, f"{folder}/x", b"1")
    assert not create_file.create_file(filesystem, f"{folder}/x", b"2")
    assert create_file.create_file(filesystem, f"{folder}/x", b"1")  # a repeated request
    assert names(place) == ["x"]


# --- kills and full disks


class Killed(BaseException):
    """What a kill is to the code: nothing runs after it."""


class Steps:
    """Counts what is done to files, and does something else before one of these steps."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._at, self._action = -1, _kill

    def interrupt(self, at: int, action: Callable[[], None] | None = None) -> None:
        """Does something before step number `at` from here: kills, if nothing else is given."""
        self.names, self._at, self._action = [], at, action or _kill

    def stop(self) -> None:
        """Interrupts nothing any more."""
        self._at = -1

    def take(self, name: str) -> None:
        if len(self.names) == self._at:
            self.stop()
            self._action()
        self.names.append(name)


def _kill() -> None:
    raise Killed


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    taken = Steps()

    def counted(name: str, function: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            taken.take(name)
            return function(*args, **kwargs)

        return step

    for owner, name in (
        (response_gather, "create_file"), (response_log, "seal"), (response_log, "delete"), (response_log, "sync"),
        (response_log, "listing"), (response_log, "in_order"), (response_gather.pq, "write_table"),
        (response_gather._Parts, "_open"), (response_gather._Parts, "add"), (response_gather._Parts, "close"),
        (response_writer.Writer, "_keeps_its_name"), (os, "rename"), (os, "link"), (os, "unlink"), (os, "fsync"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    return taken


def test_a_kill_at_any_step_of_gathering_loses_nothing_and_repeats_nothing(
    place: Place, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_gather, "_FRAME_BYTES", 150)
    monkeypatch.setattr(response_gather, "_PART_BYTES", 150)
    monkeypatch.setattr(response_gather, "_COMMIT_FILES", 2)
    for last in range(0, 200, 1 if place[0] is LOCAL else 6):
        fresh = (place[0], f"{place[1]}-{last}")
        write(fresh, ["a", "b"])
        write(fresh, ["c"])
        write(fresh, ["d"])
        steps.interrupt(last)
        try:
            response_gather.gather(*fresh, 1)
        except Killed:
            assert gathered(fresh) == ["a", "b", "c", "d"]
            continue
        break
    steps.stop()
    assert 20 < len(steps.names) <= last
    assert {"create_file", "delete", "write_table"} <= set(steps.names)


def test_what_a_kill_left_of_parts_goes_only_when_nobody_can_commit_them(place: Place) -> None:
    filesystem, folder = place
    write(place, ["a"])
    found = response_log.listing(*place)
    parts = response_gather._Parts(filesystem, folder, response_log.unique_stem(1))
    commit = response_gather._merge(response_log.Pass(filesystem, folder, {}), found.loose, parts)
    response_gather._delete_stray(filesystem, folder, response_log.listing(*place), parts.names())
    assert not response_gather._commit(filesystem, folder, found, commit)  # the paused one
    assert gathered(place) == ["a"]


def test_deletes_that_a_kill_prevented_are_made_up_for(disk: Place, tmp_path: Path) -> None:
    write(disk, ["a"], ["b"])
    before = shutil.copytree(disk[1], tmp_path / "before")
    assert gathered(disk) == ["a", "b"]
    for path in before.iterdir():
        shutil.copy(path, Path(disk[1], f"{path.name}.sealed"))
    write(disk, ["c"])
    assert gathered(disk) == ["a", "b", "c"]


def test_after_a_full_disk_the_next_line_is_whole(disk: Place) -> None:
    writer = response_writer.Writer(*disk)
    writer([line("a")])
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
        writer([line("lost")])
    writer([line("b")])
    assert gathered(disk) == ["a", "b"]


# --- two drivers in any order


class Drivers:
    """Two drivers of a run, of which any may be paused, killed and replaced at any time."""

    def __init__(self, place: Place, steps: Steps):
        self.place, self.steps = place, steps
        self.writers = [response_writer.Writer(*place, epoch) for epoch in (1, 2)]
        self.tried: list[str] = []
        self.acknowledged: list[str] = []

    def write(self, driver: int) -> None:
        text = f"{len(self.tried):03d}"
        self.tried.append(text)
        self.writers[driver]([line(text)])
        self.acknowledged.append(text)

    def gather(self, driver: int) -> None:
        response_gather.gather(*self.place, driver + 1)

    def do(self, what: str, driver: int, at: int, meanwhile: list[tuple[str, int]]) -> None:
        """Something that is interrupted at a step: by a kill if nothing is done meanwhile, else by that."""

        def others() -> None:
            for each, other in meanwhile:
                getattr(self, each)(1 - driver if each == "write" else other)  # no driver writes twice at once

        self.steps.interrupt(at, others if meanwhile else None)
        try:
            getattr(self, what)(driver)
        except Killed:
            self.writers[driver] = response_writer.Writer(*self.place, driver + 1)
        finally:
            self.steps.stop()


ACTIONS = st.tuples(st.sampled_from(["write", "write", "gather"]), st.integers(0, 1))
HISTORIES = st.lists(
    st.tuples(ACTIONS, st.integers(0, 40), st.lists(ACTIONS, max_size=3)).map(lambda each: (*each[0], *each[1:])),
    min_size=1,
    max_size=10,
)


def check_history(place: Place, steps: Steps, history: list[tuple[str, int, int, list[tuple[str, int]]]]) -> None:
    """What is read is what was written, each once; of what a kill interrupted, perhaps."""
    drivers = Drivers(place, steps)
    for each in history:
        drivers.do(*each)
    read = texts(place)
    assert max(Counter(read).values(), default=1) == 1
    assert set(drivers.acknowledged) <= set(read) <= set(drivers.tried)
    assert gathered(place) == read


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_in_any_order_every_record_is_read_once_on_a_disk(
    tmp_path: Path, steps: Steps, history: list[tuple[str, int, int, list[tuple[str, int]]]]
) -> None:
    check_history((LOCAL, str(tmp_path / secrets.token_hex(8))), steps, history)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_in_any_order_every_record_is_read_once_in_a_bucket(
    store: Place, steps: Steps, history: list[tuple[str, int, int, list[tuple[str, int]]]]
) -> None:
    check_history((store[0], f"{store[1]}-{secrets.token_hex(8)}"), steps, history)
