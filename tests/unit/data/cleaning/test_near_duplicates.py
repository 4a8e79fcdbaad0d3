"""Near duplicates are those that comparing all rows finds, none is dropped on an estimate, and the first one stays."""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zephyr_ray.config.cleaning import NearDuplicates
from zephyr_ray.data.cleaning import near_pairs, row_pairs
from zephyr_ray.data.cleaning.near_duplicates import Clusters, drop_near_duplicates
from zephyr_ray.data.cleaning.numbered_rows import numbered
from zephyr_ray.data.io import id_sets
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import DIALOGUES

Row = tuple[str, str]
"""Source and text."""
WORDS = [f"word{number}" for number in range(400)]


def write(root: Path, rows: list[Row], files: int = 1) -> tuple[Artifact, Report]:
    """An artifact of rows, divided into files."""
    artifact = Run(str(root)).artifact("dialogues")
    report = Report(rows_in=len(rows), rows_out=len(rows))
    for folder in ("data", "dropped"):
        (Path(artifact.path) / folder).mkdir(parents=True)
    for number in range(files):
        table = [
            {"dialogue_id": content_id(text), "messages": [{"role": "user", "content": text}], "source": source}
            for source, text in rows[number::files]
        ]
        name = f"data/{number}.parquet"
        pq.write_table(pa.Table.from_pylist(table, schema=DIALOGUES), Path(artifact.path) / name)
        report.files[name] = len(table)
    return artifact, report


def drop(
    root: Path, rows: list[Row], files: int = 1, section: NearDuplicates | None = None
) -> tuple[list[str], dict[str, str], Clusters]:
    """The sources of the rows that stay, and what those that go tell."""
    artifact, before = write(root, rows, files)
    after, clusters = drop_near_duplicates(artifact, before, section or NearDuplicates())
    tables = [(name, pq.read_table(Path(artifact.path) / name).to_pylist()) for name in after.files]
    assert {name: len(table) for name, table in tables} == after.files
    stays = sorted(row["source"] for name, table in tables if name.startswith("data/") for row in table)
    gone = {row["source"]: row["detail"] for name, table in tables if name.startswith("dropped/") for row in table}
    assert after.rows_out == len(stays) == len(rows) - sum(after.dropped.values())
    return stays, gone, clusters


def edited(rng: np.random.Generator, words: list[str], changes: int) -> list[str]:
    """The words with so many of them replaced."""
    words = list(words)
    for place in rng.choice(len(words), changes, replace=False):
        words[place] = WORDS[rng.integers(len(WORDS))]
    return words


def some_rows(count: int) -> list[Row]:
    """Rows of 100 words: a text of its own, or an earlier one with up to seven words replaced."""
    rng = np.random.default_rng(0)
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.6:
            texts.append(edited(rng, texts[rng.integers(len(texts))], int(rng.integers(1, 6))))
        else:
            texts.append([WORDS[place] for place in rng.integers(len(WORDS), size=100)])
    return [(f"f:{number:04d}", " ".join(words)) for number, words in enumerate(texts)]


@functools.cache
def similarities(count: int) -> dict[tuple[str, str], float]:
    """Of all pairs of `some_rows`, by sources; those that have nothing in common are left out."""
    sets = {}
    for source, text in some_rows(count):
        words = re.findall(r"\w+", text)
        sets[source] = {tuple(words[start : start + 5]) for start in range(len(words) - 4)}
    pairs = itertools.combinations(sets, 2)
    shared = ((one, other, len(sets[one] & sets[other])) for one, other in pairs)
    return {(one, other): both / len(sets[one] | sets[other]) for one, other, both in shared if both}


def clusters_of(pairs: list[tuple[str, str]]) -> list[set[str]]:
    clusters: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        merged = set(pair).union(*(clusters[source] for source in pair))
        clusters |= dict.fromkeys(merged, merged)
    return list({id(cluster): cluster for cluster in clusters.values()}.values())


@pytest.mark.usefixtures("ray_cluster")
def test_by_hand(tmp_path: Path) -> None:
    rows = [
        ("f:5", "one two three four five six seven eight nine"),
        ("f:3", "ONE two, three four five six seven eight"),  # 4 of 5 runs
        ("f:4", "one two three four five six seven eight nine ten!"),  # 5 of 6 of f:5's, 4 of 6 of f:3's
        ("f:1", "another text of more than five words"),
        ("f:2", "...!"),
        ("f:6", "?"),
        ("f:8", "Thank you"),
        ("f:7", "thank you!"),
    ]
    stays, gone, clusters = drop(tmp_path, rows, 3)
    assert stays == ["f:1", "f:2", "f:3", "f:6", "f:7"]
    assert gone == {
        "f:5": "f:3 (Jaccard 0.800)",
        "f:4": "f:3 (Jaccard 0.667, similar through other rows)",
        "f:8": "f:7 (Jaccard 1.000)",
    }
    assert clusters.sizes == {2: 1, 3: 1}
    assert clusters.pairs == 3
    largest, other = clusters.largest
    assert (largest.size, largest.kept.source, largest.farthest.source) == (3, "f:3", "f:4")
    assert largest.jaccard == pytest.approx(4 / 6)
    assert largest.farthest.text == "user: one two three four five six seven eight nine ten!"
    assert (other.kept.text, other.farthest.text) == ("user: thank you!", "user: Thank you")


@pytest.mark.usefixtures("ray_cluster")
def test_threshold_and_words_are_the_recipe_s(tmp_path: Path) -> None:
    rows = [("f:1", "one two three four"), ("f:2", "one two three five")]
    assert drop(tmp_path / "a", rows)[1] == {}
    section = NearDuplicates(threshold=0.6, words=1)  # 3 of 5 words
    assert drop(tmp_path / "b", rows, section=section)[1] == {"f:2": "f:1 (Jaccard 0.600)"}
    section = NearDuplicates(threshold=0.61, words=1)
    assert drop(tmp_path / "c", rows, section=section)[1] == {}


@pytest.mark.usefixtures("ray_cluster")
def test_pairs_are_those_that_comparing_all_rows_finds(tmp_path: Path) -> None:
    wanted = {pair: each for pair, each in similarities(400).items() if each >= 0.7}
    assert len(wanted) > 100
    rows, files = numbered(*write(tmp_path, some_rows(400)), "dialogue_id")
    pairs, mean = near_pairs.candidates(rows, files, 0.7, 5)
    near = near_pairs.compare(rows, files, pairs, 0.7, 5, mean)
    import ray

    sources = {int(rows.number(pa.array([content_id(text)]))[0]): source for source, text in some_rows(400)}
    found = {}
    for part, jaccard in ray.get(list(near.parts)):
        for larger, smaller, each in zip(*row_pairs.numbers_of(part), jaccard, strict=True):
            first, second = sorted([sources[larger], sources[smaller]])
            found[first, second] = each
    assert found.items() <= wanted.items()  # exactly as similar as they are
    assert len(found) == near.count >= 0.98 * len(wanted)
    assert mean == pytest.approx(96)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("files", [1, 5])
def test_the_first_of_each_cluster_stays_in_any_partition(
    tmp_path: Path, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if files > 1:  # as with a million times as many rows
        monkeypatch.setattr(id_sets, "_SHARD_KEYS", 4000)
        monkeypatch.setattr(near_pairs, "_SHINGLE_BYTES", 60_000)
        monkeypatch.setattr(near_pairs, "_PIECE_BYTES", 0)
    clusters = clusters_of([pair for pair, each in similarities(400).items() if each >= 0.7])
    rows = some_rows(400)
    rows = [rows[place] for place in np.random.default_rng(files).permutation(len(rows))]
    stays, gone, found = drop(tmp_path, rows, files)
    assert set(gone) == {source for cluster in clusters for source in cluster} - set(map(min, clusters))
    assert {source: detail.split()[0] for source, detail in gone.items()} == {
        source: min(cluster) for cluster in clusters for source in cluster if source in gone
    }
    assert {size: list(map(len, clusters)).count(size) for size in map(len, clusters)} == found.sizes
    for source, detail in gone.items():
        kept = detail.split()[0]
        jaccard = similarities(400).get((kept, source), 0)
        assert f"(Jaccard {jaccard:.3f}" in detail
        assert ("through other rows" in detail) == (jaccard < 0.7)
    assert len(stays) + len(gone) == 400


@pytest.mark.usefixtures("ray_cluster")
def test_rows_of_one_template_are_no_near_duplicates(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    template = [WORDS[place] for place in rng.integers(len(WORDS), size=70)]
    own = [[f"{number}w{place}" for place in range(30)] for number in range(300)]
    texts = [[*template, *words] for words in own]  # each two have a similarity of 66 / 126
    texts += [[*template, *words[:-1], "changed"] for words in own[:50]]
    rows = [(f"f:{number:03d}", " ".join(words)) for number, words in enumerate(texts)]
    _, gone, found = drop(tmp_path, rows, 2)
    assert gone == {f"f:{number + 300}": f"f:{number:03d} (Jaccard {95 / 97:.3f})" for number in range(50)}
    assert 1000 < found.candidates <= 8 * 25 * len(rows)
    assert found.pairs == 50


def test_a_bucket_of_any_size_has_few_pairs() -> None:
    keys = np.zeros((2, 100_000), np.uint64)
    keys[1] = np.arange(100_000)
    pairs, count = near_pairs._pairs_of_buckets(keys[:, ::2], keys[:, 1::2])
    assert count == len(pairs) == 8 * 100_000 - 36
    keys[0] = np.arange(100_000) // 9  # buckets of nine: all pairs
    assert near_pairs._pairs_of_buckets(keys[:, :99_999])[1] == 36 * 11_111


@pytest.mark.usefixtures("ray_cluster")
def test_nothing_is_written_where_nothing_is_near(tmp_path: Path) -> None:
    for number, rows in enumerate([[], [("f:1", "a b c d e f")], [("f:1", "a b c d e f"), ("f:2", "g h i j k l")]]):
        artifact, before = write(tmp_path / str(number), rows)
        assert drop_near_duplicates(artifact, before, NearDuplicates()) == (before, Clusters())


@pytest.mark.usefixtures("ray_cluster")
def test_rows_with_one_id_are_an_error_of_the_caller(tmp_path: Path) -> None:
    artifact, before = write(tmp_path, [("f:1", "a"), ("f:2", "a")])
    with pytest.raises(ValueError, match="1 ids several times; drop repeated rows first"):
        drop_near_duplicates(artifact, before, NearDuplicates())
