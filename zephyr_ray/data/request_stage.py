"""What the stages that ask models share: earlier replies, deployments, budget, failed rows.

They are candidates, judgments and generated dialogues. A try of such a stage writes rows as they are done and every
reply as it comes (`inference.response_cache`). The next try of the same stage asks only for what is not there. The
stage is finished when no row is left that another try could mend, or not more than `max_failed` of them.
"""

from __future__ import annotations

import contextlib
import posixpath
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from zephyr_ray.cluster import connect
from zephyr_ray.config.feedback import Requests
from zephyr_ray.data.io import resume, writer
from zephyr_ray.data.io.id_sets import IdSet
from zephyr_ray.data.io.writer import Report
from zephyr_ray.errors import UserError
from zephyr_ray.inference import response_gather
from zephyr_ray.inference.response_cache import Ledger
from zephyr_ray.pipeline.artifacts import REPLIES, Artifact
from zephyr_ray.pipeline.stage import StageContext
from zephyr_ray.schemas import Reason
from zephyr_ray.serving.stage_deployments import Application, deployed

if TYPE_CHECKING:
    import ray.data

_ID = "prompt_id"
_SHOW_S = 1.0
REASONS = {
    "failed": Reason.REQUEST_FAILED,
    "refused": Reason.REQUEST_REFUSED,
    "given_up": Reason.SERVER_GIVEN_UP,
    "over_budget": Reason.OVER_BUDGET,
}
"""What becomes of a row, by the worst failure among its requests (`request_plan.worst`)."""
_AGAIN = (Reason.REQUEST_FAILED, Reason.SERVER_GIVEN_UP, Reason.OVER_BUDGET)


@dataclass(frozen=True)
class Asking:
    """What a try of the stage works with."""

    ledger: Any
    """Handle of the `Ledger` actor."""
    applications: dict[str, Application]
    """Of the deployments, by member."""
    done: IdSet
    """Ids of the rows that earlier tries wrote."""

    def left(self, source: Artifact) -> ray.data.Dataset:
        """The rows of an artifact that are not done."""
        return resume.rows_left(source, self.done, _ID)


@contextlib.contextmanager
def asking(section: Requests, rows: int, context: StageContext, id_column: str = _ID) -> Iterator[Asking]:
    """Everything a try needs, while it runs; shows requests, tokens and cost as they come.

    The replies are gathered when the body is through and the deployments are gone.

    Args:
        section: Bounds on the cost, and the deployments.
        rows: How many there are to ask about.
        context: The stage's.
        id_column: Of the rows that are written, which tells them apart.
    """
    import ray

    artifact, progress = context.artifact, context.progress
    done = writer.written_ids(artifact, id_column)
    ledger: Any = (
        ray.remote(Ledger)
        .options(
            num_cpus=0,
            max_concurrency=10_000,
            scheduling_strategy=connect.this_node(),
        )
        .remote(artifact, section.budget_usd)
    )
    if progress is not None:
        progress.set(len(done), total=rows)
    own = {name: stage.name for name, stage in context.stage.inputs.items() if stage.makes_model}
    with deployed(artifact.stage, section.deployments, artifact.run, own) as applications, _shown(ledger, progress):
        yield Asking(ledger, applications, done)
    ray.kill(ledger)  # Ray keeps an actor whose handle was sent to others until the job ends
    response_gather.gather(artifact.run.filesystem, posixpath.join(artifact.path, REPLIES), artifact.epoch)


def settle(
    field: str,
    section: Requests,
    rows: int,
    asked: Asking,
    artifact: Artifact,
    report: Report,
    id_column: str = _ID,
) -> Report:
    """Ends a try: checks that every row is accounted for, and says what another try has to do.

    Args:
        field: The section's name in a recipe.
        section: Bounds on what may fail and cost.
        rows: How many were asked about.
        asked: What the try worked with.
        artifact: What was written.
        report: What became of the rows.
        id_column: Of the rows that are written, which tells them apart.

    Raises:
        UserError: Rows are left that the next run can mend.
        RuntimeError: Rows were lost or are there twice.
    """
    import ray

    resume.check_rows(f"{artifact.stage} was asked about", rows, artifact, report, id_column)
    totals = ray.get(asked.ledger.totals.remote())
    report.asked = totals if totals["requests"] else None
    left = sum(report.dropped.get(str(reason), 0) for reason in _AGAIN)
    stop = {reason: report.dropped.get(str(reason), 0) for reason in (Reason.OVER_BUDGET, Reason.SERVER_GIVEN_UP)}
    again = f"{report.rows_out:,} rows are done and kept; the same command goes on with the other {left:,}"
    if stop[Reason.OVER_BUDGET]:
        raise UserError(
            f"{artifact.stage}: the budget is spent ({totals['usd']:.2f} of {section.budget_usd:g} US dollars); raise "
            f"{field}.budget_usd; {again}"
        )
    if stop[Reason.SERVER_GIVEN_UP]:
        raise UserError(f"{artifact.stage}: {_first_detail(artifact, report, Reason.SERVER_GIVEN_UP)}; {again}")
    if left > section.max_failed * report.rows_in:
        raise UserError(
            f"{artifact.stage}: {left:,} of {report.rows_in:,} rows failed, more than {field}.max_failed="
            f"{section.max_failed:g} allows ({_first_detail(artifact, report, Reason.REQUEST_FAILED)}); {again}"
        )
    return report


def totals_line(totals: dict[str, float]) -> str:
    """What was asked in all tries, those of former recipes too, for a person."""
    line = f"  {totals['requests']:,} replies so far, {totals['prompt_tokens']:,} + {totals['tokens']:,} tokens"
    return line + (f", {totals['usd']:.2f} US dollars" if totals["usd"] else "")


@contextlib.contextmanager
def _shown(ledger: Any, progress: Any) -> Iterator[None]:
    """Passes the ledger's totals on to the screen while the body runs."""
    import ray

    if progress is None:
        yield
        return
    stop = threading.Event()

    def show() -> None:
        totals = ray.get(ledger.totals.remote())
        if totals["requests"]:
            usd = {"usd": totals["usd"]} if totals["usd"] else {}
            progress.show({"replies": totals["requests"], "tokens": totals["tokens"], **usd})

    def keep_showing() -> None:
        while not stop.wait(_SHOW_S):
            show()

    watcher = threading.Thread(target=keep_showing, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    show()


def _first_detail(artifact: Artifact, report: Report, reason: Reason) -> str:
    """What the first row says that was dropped for this reason."""
    import pyarrow.dataset as ds

    files = [posixpath.join(artifact.path, name) for name in report.files if name.startswith("dropped/")]
    rows = ds.dataset(files, filesystem=artifact.run.filesystem, format="parquet")
    first = rows.filter(pc.field("reason") == str(reason)).head(1)
    return str(first["detail"][0].as_py()) if first.num_rows else "no detail"
