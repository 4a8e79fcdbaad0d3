"""A large file is read once, and again as soon as anything about it has changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from zephyr_ray.pipeline import digest_cache, fingerprints
from zephyr_ray.pipeline.fingerprints import fingerprint_files


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose digest is kept however small it is, and however new."""
    monkeypatch.setenv("ZEPHYR_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_cache, "_SMALL", 0)
    monkeypatch.setattr(digest_cache, "SETTLED_NS", 0)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "rows.jsonl"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, one after the other."""
    names: list[str] = []
    digest = fingerprints._digest

    def noted(files):
        files = list(files)
        names.extend(name for name, _ in files)
        return digest(files)

    monkeypatch.setattr(fingerprints, "_digest", noted)
    return names


def test_a_file_that_has_not_changed_is_not_read_again(data: Path, read: list[str]) -> None:
    by_hand = hashlib.blake2b(b"." + b"one", digest_size=16).hexdigest()
    assert [fingerprint_files([str(data)]) for _ in range(3)] == [by_hand] * 3
    assert read == ["."]


def test_a_file_and_its_folder_have_their_own_digests(data: Path) -> None:
    for _ in range(2):
        assert fingerprint_files([str(data)]) != fingerprint_files([str(data.parent)])


@pytest.mark.parametrize("in_place", [True, False])
def test_a_change_with_the_same_size_and_time_is_noticed(data: Path, in_place: bool) -> None:
    before, times = fingerprint_files([str(data)]), data.stat()
    other = data if in_place else data.with_name("other")
    while not other.exists() or other.stat().st_ctime_ns == times.st_ctime_ns:  # the clock of a file system is coarse
        other.write_bytes(b"two")
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, data)
    assert data.stat().st_mtime_ns == times.st_mtime_ns
    assert fingerprint_files([str(data)]) == hashlib.blake2b(b".two", digest_size=16).hexdigest() != before


def test_a_new_file_in_a_folder_is_noticed(data: Path) -> None:
    before = fingerprint_files([str(data.parent)])
    (data.parent / "more.jsonl").write_bytes(b"")
    assert fingerprint_files([str(data.parent)]) != before


def test_what_has_just_changed_is_not_kept(data: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_cache, "SETTLED_NS", 10**12)
    assert fingerprint_files([str(data)]) == fingerprint_files([str(data)])
    assert read == [".", "."]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"digest": 1, "files": []}', b"\xff"])
def test_a_broken_cache_is_as_none(data: Path, tmp_path: Path, content: bytes) -> None:
    before = fingerprint_files([str(data)])
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_bytes(content)
    assert fingerprint_files([str(data)]) == before
    assert before.encode() in kept.read_bytes()


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZEPHYR_RAY_CACHE", str(tmp_path / "file"))
    assert fingerprint_files([str(data)]) == hashlib.blake2b(b".one", digest_size=16).hexdigest()


def test_small_files_are_not_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_cache, "_SMALL", 4)
    fingerprint_files([str(data)])
    assert not (tmp_path / "cache").exists()
