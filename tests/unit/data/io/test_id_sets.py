"""Ids as sorted keys: looked up exactly, in any number of shards, and never as text on the driver."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.io import file_tasks, id_sets, keys
from zephyr_ray.errors import UserError

HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
ALIKE = st.sampled_from(["0" * 16, "f" * 16])
IDS = HEX | st.builds(str.__add__, ALIKE, ALIKE | st.just("7" * 16)) | st.text(max_size=3)
"""Ids, many of which begin alike or are no hex digits."""


def test_keys_by_hand() -> None:
    ids = pa.array(["0" * 15 + "1" + "0" * 14 + "ff", "short", "F" * 32])
    hashed = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in ("short", "F" * 32)]
    assert keys.keys_of(ids)[:, 0].tolist() == [1, 255]
    assert keys.keys_of(ids).T.astype(">u8").tobytes()[16:] == b"".join(hashed)


@given(st.lists(HEX, max_size=20), st.integers(0, 5))
def test_keys_are_in_the_order_of_the_ids(ids: list[str], skipped: int) -> None:
    parts = [pa.array(ids, pa.string()).slice(skipped), pa.chunked_array([ids[:1], ids[1:]], pa.large_string())]
    ordered = keys.sorted_keys(np.concatenate([keys.keys_of(part) for part in parts], axis=1))
    wanted = sorted([*ids[skipped:], *ids])
    assert [octets.hex() for octets in map(bytes, ordered.T.astype(">u8"))] == wanted


@given(st.lists(IDS, max_size=30), st.lists(IDS, max_size=30), st.sampled_from([1, 2, 8]))
def test_what_is_there_is_found_with_its_value(inside: list[str], others: list[str], shards: int) -> None:
    inside = [*dict.fromkeys(inside)]
    table = np.concatenate([keys.keys_of(pa.array(inside, pa.string())), [np.arange(len(inside), dtype=np.uint64)]])
    ordered = keys.sorted_keys(table)
    parts = [keys.of_shard(ordered, shard, shards) for shard in range(shards)]
    assert sum(part.shape[1] for part in parts) == len(inside)
    asked = [*others, *inside]
    there, (values,) = keys.find(parts, keys.keys_of(pa.array(asked, pa.string())))
    assert there.tolist() == [text in inside for text in asked]
    assert [int(value) for value, found in zip(values, there, strict=True) if found] == [
        inside.index(text) for text in asked if text in inside
    ]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("shard_keys", [1 << 22, 2])
def test_ids_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_keys: int) -> None:
    monkeypatch.setattr(id_sets, "_SHARD_KEYS", shard_keys)
    monkeypatch.setattr(file_tasks, "_FILES", 1)
    files = [["a", "b"], ["c", "b"], ["d"], ["b", "d"]]
    paths = [str(tmp_path / f"{number}.parquet") for number in range(len(files))]
    for path, ids in zip(paths, files, strict=True):
        pq.write_table(pa.table({"id": ids, "other": ids}), path)
    found = id_sets.of_files(paths, pafs.LocalFileSystem(), "id")
    counts = Counter(text for ids in files for text in ids)
    assert (len(found), found.size, found.repeated.size) == (7, 4, 2)
    assert len(found.shards) == (1 if shard_keys > 7 else 4)
    asked = pa.chunked_array([["a", "b", "c", "d", "e"]])
    assert found.has(asked).tolist() == [True, True, True, True, False]
    repeated = [count > 1 for count in map(counts.__getitem__, asked.to_pylist())]
    assert found.repeated.find(keys.keys_of(asked))[0].tolist() == repeated


@pytest.mark.usefixtures("ray_cluster")
def test_a_machine_that_does_not_see_the_files_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"away\.parquet is not there on .*; mount a volume"):
        id_sets.of_files([str(tmp_path / "away.parquet")], pafs.LocalFileSystem(), "id")


def test_no_files_have_no_ids() -> None:
    found = id_sets.of_files([], pafs.LocalFileSystem(), "id")
    assert (len(found), found.has(pa.chunked_array([["a"]])).tolist()) == (0, [False])


@pytest.mark.parametrize("most", [1, 3, 100])
def test_groups_hold_everything_in_order(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_tasks, "_FILES", 2)
    for count in range(12):
        groups = file_tasks.groups(range(count), most)
        assert [each for group in groups for each in group] == list(range(count))
        assert len(groups) == min(-(-count // 2), most)
        assert not groups or max(map(len, groups)) - min(map(len, groups)) <= 1
