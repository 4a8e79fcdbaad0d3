"""Writes made-up prompts and answers as the stages of a run, for benchmarks/feedback.py."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLES = 2
"""Answers to a prompt."""


def write_source(work: Path, stage: str, count: int) -> None:
    """What a stage that asks reads, with one request for each row."""
    if stage == "candidates":
        write_prompts(work, count)
        return
    import pyarrow as pa

    from zephyr_ray.schemas import CANDIDATES

    rows = [{**row, "error": None} for row in made_rows(count, with_answers=True)]
    table = pa.Table.from_pylist([{key: row[key] for key in CANDIDATES.names} for row in rows], schema=CANDIDATES)
    write_artifact(work, "candidates", [table])


def write_prompts(work: Path, count: int) -> int:
    """Prompts in files of 10,000, about what the prompts stage writes; returns how many files."""
    import pyarrow as pa

    from zephyr_ray.schemas import PROMPTS

    table = pa.Table.from_pylist(list(made_rows(count)), schema=PROMPTS)
    tables = [table.slice(start, 10_000) for start in range(0, count, 10_000)]
    write_artifact(work, "prompts", tables)
    return len(tables)


def write_artifact(work: Path, stage: str, tables: list[Any]) -> None:
    import pyarrow.parquet as pq

    from zephyr_ray.pipeline.artifacts import Run

    artifact = Run(str(work / "run")).artifact(stage)
    artifact.begin("benchmark")
    Path(artifact.path, "data").mkdir(parents=True, exist_ok=True)
    names = [f"data/{number:06d}-000.parquet" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        pq.write_table(table, Path(artifact.path, name), compression="zstd")
    artifact.finish({"fingerprint": "benchmark", "files": names})


def made_rows(count: int, *, with_answers: bool = False) -> Iterator[dict[str, Any]]:
    """Prompts of 60 made-up words, no two alike; with answers, two of the length that the server writes."""
    from zephyr_ray.pipeline.fingerprints import content_id

    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8))) for _ in range(500)]
    for number in range(count):
        messages = [{"role": "user", "content": f"{number} " + " ".join(rng.choices(words, k=60))}]
        row = {"prompt_id": content_id(messages), "messages": messages, "source": f"made:{number}"}
        if with_answers:
            row["completions"] = [
                {"model": "m", "content": f"answer {number} {each} " + "of some length " * 20, "seed": each}
                for each in range(SAMPLES)
            ]
        yield row
