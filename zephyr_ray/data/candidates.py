"""reads: prompts -> writes: candidates, answers of the recipe's pool (UltraFeedback, arXiv 2310.01377, section 2.1)"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from zephyr_ray.artifacts import Artifact
from zephyr_ray.data import measures, sink
from zephyr_ray.data.asking import REASONS, Asking, asking, settle, totals_line
from zephyr_ray.data.rows import mixed_schema
from zephyr_ray.data.sink import Progress, Report
from zephyr_ray.inference.sampling import answer, sample_candidates
from zephyr_ray.recipe import Recipe
from zephyr_ray.schemas import CANDIDATES

_ROWS_PER_FILE = 512


def make_candidates(
    recipe: Recipe, prompts: Artifact, artifact: Artifact, *, progress: Progress | None = None
) -> tuple[Report, list[str]]:
    """Writes the answers to every prompt, and says in lines what that took.

    Raises:
        UserError: Rows are left that the next run can mend: servers that fail, or a spent budget.
    """
    section = recipe.sampling
    assert section is not None
    with asking(section, prompts, artifact, progress) as asked:
        split = functools.partial(to_rows, progress=progress)
        rows = _answered(recipe, asked, prompts).map_batches(split, batch_format="pyarrow", batch_size=None)
        report = sink.write(rows, artifact, CANDIDATES, measure=_measure, keep=True, rows_per_file=_ROWS_PER_FILE)
        settle(section, prompts, asked, artifact, report)
        return report, [totals_line(ray.get(asked.ledger.totals.remote()))]


def to_rows(answered: pa.Table, progress: Progress | None = None) -> pa.Table:
    """`pool.ANSWERED` -> candidates that are kept and rows that are dropped, by the worst of their failures.

    Where servers refused some of a row's requests for good, the answers that there are make the row.
    """
    rows = []
    for row in answered.to_pylist():
        failure = row.pop("failure")
        if failure is None or (failure == "refused" and row["completions"]):
            rows.append(row)
        else:
            rows.append({"source": row["prompt_id"], "reason": str(REASONS[failure]), "detail": row["error"]})
    if progress is not None:
        progress.add(len(rows))
    return pa.Table.from_pylist(rows, schema=mixed_schema(CANDIDATES))


def _answered(recipe: Recipe, asked: Asking, prompts: Artifact) -> ray.data.Dataset:
    section = recipe.sampling
    assert section is not None
    left = asked.left(prompts)
    if section.offline:
        return sample_candidates(recipe, left).map_batches(_with_failure, batch_format="pyarrow", batch_size=None)
    return answer(recipe, section, left, applications=asked.applications, ledger=asked.ledger)


def _with_failure(candidates: pa.Table) -> pa.Table:
    """An engine inside of Ray Data fails for a request alone: what it will not do, it will not do another time."""
    failure = pc.if_else(pc.is_null(candidates["error"]), pa.scalar(None, pa.string()), "refused")
    return candidates.append_column("failure", failure)


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return measures.characters(kept, ("messages",)) | measures.completions(kept)
