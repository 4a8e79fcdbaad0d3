"""Answers of a pool of models to each prompt (UltraFeedback, arXiv 2310.01377, section 2.1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from zephyr_ray import chat_template
from zephyr_ray.cluster import resources
from zephyr_ray.cluster.preload import ENGINES, ROWS
from zephyr_ray.config.feedback import Sampling
from zephyr_ray.config.model import Chat
from zephyr_ray.config.section import semantic
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.data.request_stage import REASONS, asking, settle, totals_line
from zephyr_ray.inference.principles import PRINCIPLES
from zephyr_ray.inference.sampling import answered
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput, pool_models
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import CANDIDATES


def stage(
    section: Sampling,
    chat: Chat,
    seed: int,
    prompts: Stage,
    models: Mapping[str, Stage],
    policy: ModelInput | None = None,
) -> Stage:
    """The stage `candidates`.

    Args:
        section: The pool that completes prompts.
        chat: The template of offline models.
        seed: The run's.
        prompts: What is completed.
        models: The stages of this run whose checkpoints may be deployed, by name.
        policy: The model that learns, which the pool may deploy too.
    """

    def make(context: StageContext) -> Manifest:
        asked = section.model_copy(update={"pool": pool.at_commits(section.pool)})
        report, lines = make_candidates(asked, chat, seed, context.input("prompts"), context)
        made = drop_report.examined(report, 1.0, context.artifact)
        return made | {"lines": [*made["lines"], *lines]}

    pool = pool_models("sampling.pool", section.pool, models, policy)

    def outside() -> dict[str, str]:
        return pool.outside() | (chat_template.fingerprints(chat) if section.offline else {})

    return Stage(
        "candidates",
        "rows",
        {
            "sampling": semantic(section),
            "chat": semantic(chat),
            "principles": PRINCIPLES if section.principles else None,
            "seed": seed,
        },
        make,
        inputs={"prompts": prompts, **pool.inputs},
        outside=outside,
        commits=pool.commits,
        local_files=pool.local_files,
        resources=_resources(section),
        preload=ROWS + ENGINES if section.deployments else ROWS,
    )


def _resources(section: Sampling) -> tuple[resources.Demand, ...]:
    offline = tuple(
        resources.of_workers(f"sampling.pool {each.name}", each, each.workers * resources.devices(each.engine))
        for each in section.offline
    )
    servers = resources.of_engines("sampling.pool", section.deployments)
    return offline or (*servers, resources.of_workers("sampling", section, section.workers))


def make_candidates(
    section: Sampling, chat: Chat, seed: int, prompts: Artifact, context: StageContext
) -> tuple[Report, list[str]]:
    """Writes the completions of every prompt, and says in lines what that took.

    Raises:
        UserError: Rows are left that the next run can mend: servers that fail, or a spent budget.
    """
    import ray

    artifact = context.artifact
    wanted = sources.count_rows(prompts)
    with asking(section, wanted, context) as asked:
        split = functools.partial(to_rows, progress=context.progress)
        left = asked.left(prompts)
        answers = answered(section, chat, seed, left, applications=asked.applications, ledger=asked.ledger)
        rows = answers.map_batches(split, batch_format="pyarrow", batch_size=None)
        per_file = writer.rows_per_file(wanted)
        report = writer.write(rows, artifact, CANDIDATES, measure=_measure, keep=True, rows_per_file=per_file)
        settle("sampling", section, wanted, asked, artifact, report)
        return report, [totals_line(ray.get(asked.ledger.totals.remote()))]


def to_rows(answers: pa.Table, progress: RowProgress | None = None) -> pa.Table:
    """`pool.ANSWERED` -> candidates that are kept and rows that are dropped, by the worst of their failures.

    Where servers refused some of a row's requests for good, the completions that there are make the row.
    """
    rows = []
    for row in answers.to_pylist():
        failure = row.pop("failure")
        if failure is None or (failure == "refused" and row["completions"]):
            rows.append(row)
        else:
            rows.append({"source": row["prompt_id"], "reason": str(REASONS[failure]), "detail": row["error"]})
    if progress is not None:
        progress.add(len(rows))
    return pa.Table.from_pylist(rows, schema=mixed_schema(CANDIDATES))


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("messages",)) | lengths.completions(kept)
