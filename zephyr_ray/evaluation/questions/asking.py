"""Asks one model about rows: what the stages of answers and of judgments share.

A row is made by a function that gets the row and a way to ask the model, so that what is asked and what is read of a
reply can be tested without Ray. Replies are kept, and paid once, as those of AI feedback (`data.request_stage`).
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from zephyr_ray.cluster import connect
from zephyr_ray.config.evaluation import EvaluationSection
from zephyr_ray.config.feedback import Server
from zephyr_ray.data.io import drop_report, writer
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.writer import RowProgress
from zephyr_ray.data.request_stage import REASONS, Asking, asking, settle, totals_line
from zephyr_ray.inference.pool import CALLS, Pool, in_flight_share, rows_per_batch
from zephyr_ray.inference.request_plan import Completion, Failure, worst
from zephyr_ray.inference.seeds import request_seed
from zephyr_ray.pipeline.stage import Manifest, StageContext
from zephyr_ray.serving.stage_deployments import Application

if TYPE_CHECKING:
    import ray.data

Row = dict[str, Any]
Message = dict[str, str]

PLANNED = pa.schema([("row_id", pa.string()), ("row", pa.string())])
"""A row to ask about, as JSON."""


class Ask(Protocol):
    """Asks the model about the row."""

    def __call__(
        self, messages: Sequence[Message], number: int, fields: Mapping[str, Any], /
    ) -> Awaitable[Completion | Failure]:
        """The reply.

        Args:
            messages: The conversation.
            number: Of the request among the row's, which decides its seed.
            fields: Further ones of the request: temperature, max_tokens ...
        """


MakeRow = Callable[[Row, Ask], Awaitable[Row]]
"""A planned row -> the row that is written, without `error`. It asks one after the other, or nothing at all."""


def asked_alone(section: EvaluationSection, server: Server) -> EvaluationSection:
    """The section with one model, which a stage asks, and runs itself where it is a deployment."""
    return section.model_copy(update={"models": (server,), "judge": None})


def request_fields(temperature: float, max_tokens: int, extra: Mapping[str, Any]) -> Row:
    """The fields of each request, with further ones under their own names."""
    return {"temperature": temperature, "max_tokens": max_tokens, "extra_body": extra or None}


def ask_about(
    section: EvaluationSection,
    seed: int,
    rows: Sequence[Row],
    make_row: MakeRow,
    schema: pa.Schema,
    context: StageContext,
) -> Manifest:
    """Writes a row for each planned one, and returns the stage's part of the manifest.

    Args:
        section: With one model (`asked_alone`), and bounds on the requests.
        seed: The run's.
        rows: What there is to ask about, each with its id under the name of the schema's first column.
        make_row: Makes the rows, in workers.
        schema: Of what is written: with the id first, and `error`, which says why a reply is missing.
        context: The stage's.

    Raises:
        UserError: Rows are left that the next run can mend: servers that fail, or a spent budget.
    """
    import ray

    artifact, id_column = context.artifact, schema.names[0]
    with asking(section, len(rows), context, id_column) as asked:
        left = _rows_left(rows, asked, section.workers, id_column)
        made = _by_workers(section, seed, make_row, schema, asked, left)
        split = functools.partial(to_rows, schema=schema, progress=context.progress)
        made = made.map_batches(split, batch_format="pyarrow", batch_size=None)
        per_file = writer.rows_per_file(len(rows))
        report = writer.write(made, artifact, schema, keep=True, rows_per_file=per_file)
        settle("evaluation", section, len(rows), asked, artifact, report, id_column)
        lines = [totals_line(ray.get(asked.ledger.totals.remote()))]
    examined = drop_report.examined(report, 1.0, artifact)
    return examined | {"lines": [*examined["lines"], *lines]}


def to_rows(made: pa.Table, *, schema: pa.Schema, progress: RowProgress | None = None) -> pa.Table:
    """What workers made -> rows that are kept and rows that are dropped, by the worst of their failures.

    A row of which a request was refused for good is kept: it says in `error` what is missing.
    """
    rows = []
    for row in made.to_pylist():
        failure = row.pop("failure")
        if failure is None or failure == "refused":
            rows.append(row)
        else:
            rows.append({"source": row[schema.names[0]], "reason": str(REASONS[failure]), "detail": row["error"]})
    if progress is not None:
        progress.add(len(rows))
    return pa.Table.from_pylist(rows, schema=mixed_schema(schema))


def _rows_left(rows: Sequence[Row], asked: Asking, blocks: int, id_column: str) -> ray.data.Dataset:
    """`PLANNED` of the rows that are not done, at least a block for each worker."""
    import ray.data

    table = pa.table(
        {"row_id": [row[id_column] for row in rows], "row": [json.dumps(row) for row in rows]}, schema=PLANNED
    )
    if len(asked.done):
        table = table.filter(pa.array(~asked.done.has(table["row_id"])))
    size = max(1, -(-table.num_rows // blocks))
    return ray.data.from_arrow([table.slice(start, size) for start in range(0, table.num_rows, size)] or [table])


def _by_workers(
    section: EvaluationSection, seed: int, make_row: MakeRow, schema: pa.Schema, asked: Asking, rows: ray.data.Dataset
) -> ray.data.Dataset:
    """What fixed actors make of rows: each has its share of the model's bound, so there are never more of them."""
    from ray.data import ActorPoolStrategy

    return rows.map_batches(
        AskingPool,
        fn_constructor_kwargs={
            "section": section,
            "run_seed": seed,
            "make_row": make_row,
            "schema": schema,
            "applications": asked.applications,
            "ledger": asked.ledger,
        },
        batch_format="pyarrow",
        batch_size=rows_per_batch(in_flight_share(section.models[0], section.workers), 1),
        compute=ActorPoolStrategy(
            size=section.workers, max_tasks_in_flight_per_actor=2 * CALLS, max_concurrent_calls_per_actor=CALLS
        ),
        num_cpus=section.cpus_per_worker,
        label_selector=connect.selector(section.labels),
    )


class AskingPool(Pool):
    """One worker's client of the model."""

    def __init__(
        self,
        section: EvaluationSection,
        run_seed: int,
        make_row: MakeRow,
        schema: pa.Schema,
        applications: Mapping[str, Application],
        ledger: Any = None,
    ):
        """
        Args:
            section: With the one model.
            run_seed: Of the run.
            make_row: Makes a row.
            schema: Of a row.
            applications: The model's, if it is a deployment.
            ledger: Handle of the stage's `Ledger` actor, if it keeps one.
        """
        super().__init__(section.models, section.workers, applications=applications, ledger=ledger)
        (self._name,) = section.names
        self._run_seed, self._make_row = run_seed, make_row
        self._schema = schema.append(pa.field("failure", pa.string()))

    async def __call__(self, batch: pa.Table) -> pa.Table:
        planned = batch.to_pylist()
        known = await self.known([each["row_id"] for each in planned])
        made = await asyncio.gather(
            *(self._row(each["row_id"], json.loads(each["row"]), known.get(each["row_id"], {})) for each in planned)
        )
        return pa.Table.from_pylist(made, schema=self._schema)

    async def _row(self, row_id: str, row: Row, known: Mapping[str, Any]) -> Row:
        failures: list[Failure] = []

        async def ask(messages: Sequence[Message], number: int, fields: Mapping[str, Any], /) -> Completion | Failure:
            body = {
                "messages": list(messages),
                "seed": request_seed(self._run_seed, row_id, self._name, number),
                **fields,
            }
            outcome = await self.members[self._name].ask(row_id, body, known)
            if isinstance(outcome, Failure):
                failures.append(outcome)
            return outcome

        made = await self._make_row(row, ask)
        reasons = dict.fromkeys(f"{self._name}: {failure.reason}" for failure in failures)
        return {**made, "failure": worst(failures), "error": "; ".join(reasons) or None}
