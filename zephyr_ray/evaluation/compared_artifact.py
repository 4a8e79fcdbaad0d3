"""Comparisons of two models of a run's `judgments`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.compared_models import Compared
from zephyr_ray.evaluation.comparison_files import from_rated_prompts
from zephyr_ray.pipeline.artifacts import Artifact, Run

COLUMNS = ("prompt_id", "completions")


def read_judgments(uri: str, a: str | None = None, b: str | None = None) -> Compared:
    """The comparisons of two models of a finished stage's judgments.

    Args:
        uri: The stage's folder, a path or a URI: ROOT/judgments.
        a: Whose wins are counted. None: the judgments are of two models, and it is the first of them.
        b: The other one.

    Raises:
        UserError: There are no finished judgments, or the names do not pick two of their models.
    """
    root, _, stage = uri.rstrip("/").rpartition("/")
    artifact = Run(root or ".").artifact(stage)
    return from_rated_prompts(uri, judgment_rows(artifact), a, b)


def judgment_rows(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """`COLUMNS` of every row.

    Raises:
        UserError: The artifact is not there, or holds something else.
    """
    for path in artifact.files():
        with pq.ParquetFile(path, filesystem=artifact.run.filesystem) as file:
            if not set(COLUMNS) <= set(file.schema_arrow.names):
                raise UserError(f"{artifact.uri} holds no judgments; name ROOT/judgments")
            for batch in file.iter_batches(columns=list(COLUMNS)):
                yield from batch.to_pylist()
