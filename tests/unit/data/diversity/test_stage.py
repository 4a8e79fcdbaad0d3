"""The stage on files: what it reads is the same however rows lie in them, and a large artifact is sampled by seed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.cleaning.test_chain import dialogue
from tests.unit.data.diversity.vectors import drawn
from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.data.diversity import sample
from zephyr_ray.data.diversity.stage import make_diversity
from zephyr_ray.data.io import file_tasks
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import DIALOGUES, EMBEDDINGS, PROMPTS

COUNT = 60


def artifact_of(root: Path, name: str, tables: list[pa.Table]) -> Artifact:
    artifact = Run(str(root)).artifact(name)
    (root / name / "data").mkdir(parents=True)
    names = [f"data/{number}.parquet" for number in range(len(tables))]
    for file, table in zip(names, tables, strict=True):
        pq.write_table(table, root / name / file)
    rows = [{"name": file, "rows": len(table)} for file, table in zip(names, tables, strict=True)]
    artifact.finish({"fingerprint": name, "files": rows})
    return artifact


def dialogues(order: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for number in order.tolist():
        messages = dialogue(f"Say {number} of it, if it is so", f"It is {number % 7}.")
        source = f"magpie:t:{number + 1}" if number % 3 else f"self_instruct:t:1.{number}.1"
        rows.append({"dialogue_id": content_id(messages), "messages": messages, "source": source})
    return rows


def made(root: Path, order: np.ndarray, cuts: list[int]) -> str:
    """The numbers that the stage writes where rows lie in files in this order, cut at these places."""
    rows = dialogues(order)
    vectors = {
        row["dialogue_id"]: vector for row, vector in zip(dialogues(np.arange(COUNT)), drawn(COUNT), strict=True)
    }
    embedded = [{"dialogue_id": row["dialogue_id"], "embedding": vectors[row["dialogue_id"]]} for row in rows[::-1]]
    bounds = [0, *cuts, COUNT]
    parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
    seeds = [{"prompt_id": "a", "messages": dialogue("Say it", "x")[:1], "source": "f:1"}]
    given = {
        "dialogues": [pa.Table.from_pylist(rows[part], schema=DIALOGUES) for part in parts],
        "embeddings": [pa.Table.from_pylist(embedded[part], schema=EMBEDDINGS) for part in parts],
        "seeds": [pa.Table.from_pylist(seeds, schema=PROMPTS)],
    }
    artifact = Run(str(root)).artifact("diversity")
    artifact.begin("f")
    manifest = make_diversity(3, artifact, **{name: artifact_of(root, name, tables) for name, tables in given.items()})
    assert manifest["files"] == ["diversity.json", "report.html"]
    assert "<!doctype html>" in Path(artifact.path, "report.html").read_text()
    return Path(artifact.path, "diversity.json").read_text()


@pytest.mark.usefixtures("ray_cluster")
def test_the_rows_may_lie_as_they_like(tmp_path: Path) -> None:
    first = made(tmp_path / "a", np.arange(COUNT), [])
    second = made(tmp_path / "b", np.random.default_rng(0).permutation(COUNT), [5, 5, 40])
    assert first == second
    numbers = json.loads(first)
    assert (numbers["dialogues"], numbers["measured"]) == (COUNT, COUNT)
    assert numbers["methods"] == {"magpie": 40, "self_instruct": 20}
    assert [*numbers["distinct"]] == ["users", "assistant", "seeds"]
    assert [*numbers["embedded"]["generations"]] == ["magpie", "self_instruct"]


@pytest.mark.usefixtures("ray_cluster")
def test_a_sample_is_drawn_by_seed_and_without_favour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dialogues(np.arange(3_000))
    schema = pa.schema([DIALOGUES.field(0), DIALOGUES.field(2)])
    tables = [pa.Table.from_pylist(rows[start : start + 1_000], schema=DIALOGUES) for start in (0, 1_000, 2_000)]
    artifact = artifact_of(tmp_path, "generated_dialogues", tables)
    monkeypatch.setattr(sample, "MOST", 1_000)

    def drawn_with(seed: int) -> pa.Table:
        read = pa.concat_tables(file_tasks.get(sample.read(artifact, schema, seed)))
        assert 1_000 < len(read) < 1_150
        return sample.lowest(read, seed)

    first, second = drawn_with(0), drawn_with(1)
    assert len(first) == len(second) == 1_000
    assert len(set(first["dialogue_id"].to_pylist()) & set(second["dialogue_id"].to_pylist())) < 450
    places = {row["dialogue_id"]: place for place, row in enumerate(rows)}
    drawn_places = np.array([places[each] for each in first["dialogue_id"].to_pylist()])
    assert np.bincount(drawn_places // 1_000).min() > 270
    assert sample.methods(artifact) == {"magpie": 2_000, "self_instruct": 1_000}


def test_it_stands_behind_what_it_reads() -> None:
    generation = {
        "pool": [{"type": "endpoint", "name": "far", "base_url": "http://h/v1", "model": "m"}],
        "methods": [{"type": "simulated_user", "dialogues": 3}],
        "seeds": "FILE",
    }

    def names(*overrides: str) -> list[str]:
        recipe = loader.load([], [f"generation={json.dumps(generation)}", *overrides])
        selected = zephyr.select(recipe, ["diversity"])
        assert selected[-1].name == "diversity"
        return [stage.name for stage in selected]

    assert names() == ["seeds", "generated_dialogues", "diversity"]
    assert names("embeddings.model=/m", "dialogues.train=generated") == [
        "seeds",
        "generated_dialogues",
        "generated_embeddings",
        "diversity",
    ]
