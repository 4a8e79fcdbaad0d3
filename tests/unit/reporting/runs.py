"""Small runs as the runner writes them: manifests, rows, metrics and results, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.schemas import PREFERENCES


def finish(
    root: Path, stage: str, fingerprint: str, *reads: str, tables: dict[str, pa.Table] | None = None, **made: Any
) -> Path:
    """A finished stage that read artifacts of these fingerprints; returns its folder.

    Args:
        root: The run's.
        stage: Its name.
        fingerprint: Its fingerprint.
        reads: Fingerprints of what it read.
        tables: What is written to `data/NAME.parquet`.
        made: The stage's own part of the manifest.
    """
    artifact = Run(str(root)).artifact(stage)
    artifact.begin(fingerprint)
    files = []
    for name, table in (tables or {}).items():
        (root / stage / "data").mkdir(exist_ok=True)
        pq.write_table(table, root / stage / "data" / f"{name}.parquet")
        files.append({"name": f"data/{name}.parquet", "rows": table.num_rows})
    inputs = {f"input {number}": each for number, each in enumerate(reads)}
    common = {"stage": stage, "fingerprint": fingerprint, "inputs": inputs, "config": {}, "seconds": 60.0}
    artifact.finish({**common, "files": files, **made})
    return root / stage


def counts(rows_in: int, rows_out: int, added: int = 0, **dropped: int) -> dict[str, Any]:
    return {"in": rows_in, "out": rows_out, "dropped": dropped} | ({"added": added} if added else {})


def pair(number: int, chosen: str, rejected: str) -> dict[str, Any]:
    def says(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return {
        "pair_id": str(number),
        "prompt": says("user", f"question {number}"),
        "chosen": says("assistant", chosen),
        "rejected": says("assistant", rejected),
        "score_chosen": 2.0,
        "score_rejected": 1.0,
        "chosen_model": "a",
        "rejected_model": "b",
        "source": f"file:{number}",
    }


def pairs_table(pairs: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(pairs, schema=PREFERENCES)


def write_metrics(folder: Path, rows: list[dict[str, float]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
