"""Rows have the same numbers in any partition; packing loses only the tail; references belong to their pairs."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import GROUP_LOGPS, GROUPS, PREFERENCES, REFERENCE_LOGPS, TOKENIZED, TOKENIZED_DIALOGUES
from zephyr_ray.training import dataset as training_rows
from zephyr_ray.training.sampler import Slot


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEPHYR_RAY_CACHE", str(tmp_path / "cache"))


def write(root: Path, stage: str, schema: pa.Schema, files: list[list[dict]]) -> Artifact:
    artifact = Run(str(root)).artifact(stage)
    artifact.begin("x")
    (Path(artifact.path) / "data").mkdir()
    for number, rows in enumerate(files):
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), Path(artifact.path) / f"data/{number}.parquet")
    artifact.finish({"fingerprint": "x", "files": [f"data/{number}.parquet" for number in range(len(files))]})
    return artifact


def pair(name: str) -> dict:
    code = ord(name)
    ids = {"prompt_ids": [code], "chosen_ids": [code, 1], "rejected_ids": [code, 2]}
    return {"pair_id": name, **ids, "prompt_truncated": 0, "chosen_truncated": 0, "rejected_truncated": 0}


def logps(name: str) -> dict:
    return {"pair_id": name, "ref_chosen_logps": -float(ord(name)), "ref_rejected_logps": -1.0}


@pytest.mark.parametrize("cut", [["dacb"], ["d", "acb"], ["cb", "da"]])
def test_row_numbers_follow_the_ids(tmp_path: Path, cut: list[str]) -> None:
    tokenized = write(tmp_path, "tokenized", TOKENIZED, [[pair(name) for name in part] for part in cut])
    references = write(tmp_path, "reference_logps", REFERENCE_LOGPS, [[logps(name) for name in "bdca"]])
    rows = training_rows.load_pairs(tokenized, references)
    assert len(rows) == 4
    row = rows[Slot(2, 0.5)]
    assert (row["pair_id"], row["prompt_ids"], row["chosen_ids"]) == ("c", [ord("c")], [ord("c"), 1])
    assert (row["ref_chosen_logps"], row["row"], row["loss_scale"]) == (-float(ord("c")), 2, 0.5)


def test_lengths_of_a_pair_by_hand(tmp_path: Path) -> None:
    """Numbers as those of the rows, not of the files: b is row 1 and lies first."""
    long = pair("b") | {"prompt_ids": [7] * 5, "rejected_ids": [7] * 3}
    tokenized = write(tmp_path, "tokenized", TOKENIZED, [[long], [pair("c"), pair("a")]])
    references = write(tmp_path, "reference_logps", REFERENCE_LOGPS, [[logps(name) for name in "abc"]])
    rows = training_rows.load_pairs(tokenized, references)
    assert rows.token_counts("rejected_ids").tolist() == [2, 3, 2]
    assert rows.packed_lengths().tolist() == [1 + 2 + 2, 5 + 2 + 3, 1 + 2 + 2]


@pytest.mark.parametrize("others", ["abc", "abcde", "abce"])
def test_references_of_other_pairs_are_refused(tmp_path: Path, others: str) -> None:
    tokenized = write(tmp_path, "tokenized", TOKENIZED, [[pair(name) for name in "abcd"]])
    references = write(tmp_path, "reference_logps", REFERENCE_LOGPS, [[logps(name) for name in others]])
    with pytest.raises(UserError, match="does not belong to"):
        training_rows.load_pairs(tokenized, references)


def group(name: str, completions: list[list[int]]) -> dict:
    last = len(completions) - 1
    sides = {
        "chosen": [0] * last,
        "rejected": list(range(1, last + 1)),
        "pair_ids": [f"{name}{n}" for n in range(last)],
    }
    return {"group_id": name, "prompt_ids": [5, 6], "completions": completions, **sides}


def group_logps(name: str, *values: float) -> dict:
    return {"group_id": name, "ref_logps": values}


def test_rows_of_groups_by_hand(tmp_path: Path) -> None:
    long, short = group("a", [[1], [2, 2], [3, 3, 3]]), group("b", [[4], []])
    groups = write(tmp_path, "tokenized_groups", GROUPS, [[short], [long]])
    logps = [[group_logps("b", -4.0, -5.0), group_logps("a", -1.0, -2.0, -3.0)]]
    rows = training_rows.load_groups(groups, write(tmp_path, "reference_logps", GROUP_LOGPS, logps))
    assert rows.packed_lengths().tolist() == [2 + 6, 2 + 1]
    assert rows.loss_weights().tolist() == [2, 1]
    assert rows[Slot(0, 0.5)] == {**long, "ref_logps": [-1, -2, -3], "row": 0, "loss_scale": 0.5}
    assert rows[Slot(1, 0.5)]["ref_logps"] == [-4, -5]


@pytest.mark.parametrize("logps", [{"b": [-1.0]}, {"a": [-1.0, -2.0], "b": [-1.0]}, {"a": [-1.0, -2.0, -3.0]}])
def test_references_of_other_groups_are_refused(tmp_path: Path, logps: dict[str, list[float]]) -> None:
    groups = write(tmp_path, "tokenized_groups", GROUPS, [[group("a", [[1], [2]])]])
    scored = [group_logps(name, *values) for name, values in logps.items()]
    references = write(tmp_path, "reference_logps", GROUP_LOGPS, [scored])
    with pytest.raises(UserError, match="does not belong to"):
        training_rows.load_groups(groups, references)


def test_a_machines_copy_is_made_once_and_forgotten(tmp_path: Path) -> None:
    tokenized = write(tmp_path, "tokenized", TOKENIZED, [[pair(name) for name in "ab"]])
    references = write(tmp_path, "reference_logps", REFERENCE_LOGPS, [[logps(name) for name in "ab"]])
    training_rows.load_pairs(tokenized, references)
    (copy,) = (tmp_path / "cache" / "rows").glob("*.arrow")
    made = copy.stat().st_mtime_ns
    training_rows.load_pairs(tokenized, references)
    assert copy.stat().st_mtime_ns == made
    training_rows.forget(tokenized)
    assert not list((tmp_path / "cache" / "rows").iterdir())


def dialogues(tmp_path: Path) -> Artifact:
    rows = [
        {"dialogue_id": "b", "input_ids": [4, 5, 6, 7], "assistant_mask": [0, 0, 1, 1], "truncated": 0},
        {"dialogue_id": "a", "input_ids": [1, 2, 3], "assistant_mask": [0, 1, 1], "truncated": 0},
    ]
    return write(tmp_path, "tokenized_dialogues", TOKENIZED_DIALOGUES, [rows])


def test_labels_by_hand(tmp_path: Path) -> None:
    artifact = dialogues(tmp_path)
    assert training_rows.load_dialogues(artifact, "assistant")[Slot(0, 1.0)]["labels"] == [-100, 2, 3]
    assert training_rows.load_dialogues(artifact, "all")[Slot(0, 1.0)]["labels"] == [1, 2, 3]


def test_joining_in_order_of_ids_drops_only_the_tail(tmp_path: Path) -> None:
    artifact = dialogues(tmp_path)
    joined = training_rows.load_joined_dialogues(artifact, 3)
    assert [joined[Slot(number, 1.0)]["input_ids"] for number in range(len(joined))] == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(UserError, match="shorter than one row of 8 tokens"):
        training_rows.load_joined_dialogues(artifact, 8)


def test_a_machine_joins_dialogues_once_and_forgets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = dialogues(tmp_path)
    first = training_rows.load_joined_dialogues(artifact, 3)
    monkeypatch.delattr(training_rows, "write_joined")
    assert training_rows.load_joined_dialogues(artifact, 3)[Slot(1, 1.0)] == first[Slot(1, 1.0)]
    training_rows.forget(artifact)
    assert not list((tmp_path / "cache" / "rows").iterdir())


@given(
    lists=st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=12),
    chunks=st.integers(1, 4),
    at_a_time=st.integers(1, 5),
    length=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_joining_equals_joining_lists(
    lists: list[list[int]], chunks: int, at_a_time: int, length: int, seed: int, tmp_path_factory: Any
) -> None:
    """Whatever the chunks that hold the dialogues , their order, and how many go at a time."""
    order = np.random.default_rng(seed).permutation(len(lists))
    stream = [token for number in order for token in lists[number]]
    plain = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
    whole = pa.array([[7, 7], *lists], pa.list_(pa.int32()))
    cuts = sorted({1, *np.linspace(1, len(whole), chunks + 1).astype(int).tolist()})
    parts = [whole.slice(start, stop - start) for start, stop in itertools.pairwise(cuts)]
    path = str(tmp_path_factory.mktemp("joined") / "rows.arrow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_rows, "_JOINED_AT_A_TIME", at_a_time)
        training_rows.write_joined(pa.chunked_array(parts, pa.list_(pa.int32())), order, length, path)
    with pa.ipc.open_stream(path) as stored:
        assert stored.read_all()["input_ids"].to_pylist() == plain


def test_margins_are_those_of_the_pairs_scores(tmp_path: Path) -> None:
    """In any order of the files, and of the pairs that `tokenized` kept."""
    tokenized = write(tmp_path, "tokenized", TOKENIZED, [[pair("c"), pair("a")]])
    scores = {"a": (3.0, 1.0), "b": (9.0, 1.0), "c": (5.0, 4.5)}
    rows: list[dict] = [
        {"pair_id": name, "score_chosen": high, "score_rejected": low} for name, (high, low) in scores.items()
    ]
    found = training_rows.load_pairs_with_margins(
        tokenized, write(tmp_path, "preferences", PREFERENCES, [rows[:1], rows[1:]]), 0.5
    )
    assert [found[Slot(number, 1.0)]["margin"] for number in range(2)] == [1.0, 0.25]
    rows[2]["score_rejected"] = None
    other = write(tmp_path / "other", "preferences", PREFERENCES, [rows])
    with pytest.raises(UserError, match=r"^reward_model\.margin=0\.5: 1 of 2 pairs have no scores; set it to 0"):
        training_rows.load_pairs_with_margins(tokenized, other, 0.5)
