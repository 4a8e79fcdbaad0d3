"""Ratings of each completion by language models, a program or a reward model (UltraFeedback, arXiv 2310.01377, 2.2)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray import chat_template
from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.preload import ENGINES, ROWS
from zephyr_ray.config.feedback import DeltaJudge, FunctionJudge, Judging, LanguageModelJudges, RewardModelJudge
from zephyr_ray.config.model import Chat
from zephyr_ray.config.section import semantic
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rewrite import kept_files
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.data.request_stage import REASONS, Asking, asking, settle, totals_line
from zephyr_ray.errors import UserError
from zephyr_ray.inference.pool import CALLS, in_flight_share, rows_per_batch
from zephyr_ray.judging.agreement import KINDS, AgreementCounter, DisagreementCounter
from zephyr_ray.judging.pool import JUDGED, JudgePool
from zephyr_ray.judging.rubrics import rubric_fingerprint
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput, ModelSource, PoolModels, pool_models
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import ASPECTS, JUDGMENTS
from zephyr_ray.training.methods import methods

if TYPE_CHECKING:
    import ray.data

_ROWS_PER_BATCH = 256


def stage(
    section: Judging,
    chat: Chat,
    seed: int,
    candidates: Stage,
    models: Mapping[str, Stage],
    kind: str = "judgments",
    policy: ModelInput | None = None,
) -> Stage:
    """The stage `judgments`, or another one that judges answers.

    Args:
        section: Who judges, and how.
        chat: The template of models that the stage runs itself.
        seed: The run's.
        candidates: What is judged.
        models: The stages of this run whose checkpoints may be deployed or, of reward models, may judge, by name.
        kind: The stage's.
        policy: The model that learns, which may judge too.

    Raises:
        UserError: A model is that of a stage that this run does not have.
    """
    judge = section.judge
    judges = pool_models("judging.judge.models", section.servers, models, policy)
    reward_model = reward_model_of(judge, models) if isinstance(judge, RewardModelJudge) else None

    def outside() -> dict[str, str]:
        found = judges.outside()
        if reward_model:
            found |= reward_model.outside() | chat_template.fingerprints(chat)
        if isinstance(judge, FunctionJudge):
            from zephyr_ray.judging.function_judge import program_fingerprints

            found |= program_fingerprints(judge.function)
        return found

    def make(context: StageContext) -> Manifest:
        source = reward_model.source(context.run) if reward_model else None
        found, candidates = _at_commits(section, judges), context.input("candidates")
        report, agreement, lines = make_judgments(found, seed, candidates, source, context)
        made = drop_report.examined(report, 1.0, context.artifact)
        return made | {"agreement": agreement, "lines": [*made["lines"], *lines]}

    return Stage(
        kind,
        "rows",
        {
            "judging": semantic(section),
            "rubrics": rubric_fingerprint() if isinstance(judge, LanguageModelJudges) else None,
            "chat": semantic(chat) if reward_model or section.deployments else None,
            "seed": seed,
        },
        make,
        inputs={"candidates": candidates, **judges.inputs, **(reward_model.inputs if reward_model else {})},
        outside=outside,
        commits=lambda: judges.commits() | (reward_model.commits() if reward_model else {}),
        local_files=judges.local_files + (reward_model.local_files if reward_model else ()),
        resources=(
            *resources.of_engines("judging.judge.models", section.deployments),
            resources.of_workers("judging", section, section.workers),
        ),
        preload=ROWS + ENGINES if section.deployments else ROWS,
    )


def reward_model_of(judge: RewardModelJudge, models: Mapping[str, Stage]) -> ModelInput:
    """The judge: a reward model that this run trains, or one from outside.

    Raises:
        UserError: This run does not train it, or trains no reward model by that name.
    """
    field = "judging.judge.model"
    known = methods()
    if judge.model not in known:
        return ModelInput("reward_model", field, judge.model, judge.revision, is_reward_model=True)
    if not known[judge.model].makes_reward_model:
        raise UserError(f"{field}={judge.model} is no reward model; name one, a folder, a URI or a hub id")
    if judge.model not in models:
        raise UserError(f"{field}={judge.model}: this recipe has no such stage; add a section {judge.model}")
    return ModelInput("reward_model", field, stage=models[judge.model])


def _at_commits(section: Judging, judges: PoolModels) -> Judging:
    """The section, whose deployments of hub ids name the commit that was found."""
    judge = section.judge
    if not isinstance(judge, LanguageModelJudges):
        return section
    models = judges.at_commits(judge.models)
    return section.model_copy(update={"judge": judge.model_copy(update={"models": models})})


def make_judgments(
    section: Judging,
    seed: int,
    candidates: Artifact,
    reward_model: ModelSource | None,
    context: StageContext,
) -> tuple[Report, dict[str, Any], list[str]]:
    """Writes the candidates with their ratings; returns agreement figures too, and lines on what all of it took.

    Raises:
        UserError: Rows are left that the next run can mend: servers that fail, or a spent budget; or a judge that
            cannot be used.
    """
    import ray

    artifact = context.artifact
    wanted = sources.count_rows(candidates)
    with asking(section, wanted, context) as asked:
        split = functools.partial(to_rows, progress=context.progress)
        rows = _judged(section, seed, asked, candidates, reward_model)
        rows = rows.map_batches(split, batch_format="pyarrow", batch_size=None)
        report = writer.write(
            rows,
            artifact,
            JUDGMENTS,
            measure=_measure,
            make=_counted if section.servers else None,
            count=_count if section.servers else None,
            keep=True,
            rows_per_file=writer.rows_per_file(wanted),
        )
        settle("judging", section, wanted, asked, artifact, report)
        _check_scored(report, artifact)
        lines = [totals_line(ray.get(asked.ledger.totals.remote()))] if section.servers else []
    agreement = (report.tally or AgreementTally()).result() if section.servers else {}
    return report, agreement, [*lines, *_agreement_lines(agreement)]


def to_rows(judged: pa.Table, progress: RowProgress | None = None) -> pa.Table:
    """`judging.pool.JUDGED` -> judgments that are kept and rows that are dropped, by the worst of their failures.

    Where a judge refused a request for good, the row is kept, with null for what it did not say.
    """
    rows = []
    for row in judged.to_pylist():
        failure = row.pop("failure")
        if failure is None or failure == "refused":
            rows.append(row)
        else:
            rows.append({"source": row["prompt_id"], "reason": str(REASONS[failure]), "detail": row["error"]})
    if progress is not None:
        progress.add(len(rows))
    return pa.Table.from_pylist(rows, schema=mixed_schema(JUDGMENTS))


def _judged(
    section: Judging, seed: int, asked: Asking, candidates: Artifact, reward_model: ModelSource | None
) -> ray.data.Dataset:
    """Rows of `judging.pool.JUDGED`."""
    from ray.data import ActorPoolStrategy

    left, judge = asked.left(candidates), section.judge
    if isinstance(judge, FunctionJudge):
        from zephyr_ray.judging.function_judge import load_judge

        load_judge(judge.function)  # a wrong name fails here, before any work
        rate = functools.partial(_by_program, function=judge.function)
        return left.map_batches(rate, batch_format="pyarrow", batch_size=_ROWS_PER_BATCH)
    if isinstance(judge, DeltaJudge):
        rate = functools.partial(_by_model, chosen=judge.chosen, rejected=judge.rejected)
        return left.map_batches(rate, batch_format="pyarrow", batch_size=_ROWS_PER_BATCH)
    if isinstance(judge, LanguageModelJudges):
        return _by_language_models(section, judge, seed, asked, left)
    return left.map_batches(
        _RewardModelWorker,
        fn_constructor_args=(judge, reward_model),
        batch_format="pyarrow",
        batch_size=_ROWS_PER_BATCH,
        compute=ActorPoolStrategy(size=section.workers),
        num_cpus=section.cpus_per_worker,
        label_selector=connect.selector(section.labels),
        num_gpus=judge.gpus_per_worker or None,
    )


def _by_language_models(
    section: Judging, judge: LanguageModelJudges, seed: int, asked: Asking, candidates: ray.data.Dataset
) -> ray.data.Dataset:
    """Fixed actors: each has its share of every judge's bound, so there are never more of them than shares."""
    from ray.data import ActorPoolStrategy

    busiest = max(in_flight_share(each, section.workers) for each in judge.models)
    return candidates.map_batches(
        JudgePool,
        fn_constructor_kwargs={
            "section": judge,
            "workers": section.workers,
            "run_seed": seed,
            "applications": asked.applications,
            "ledger": asked.ledger,
        },
        batch_format="pyarrow",
        batch_size=rows_per_batch(busiest, len(judge.aspects) * judge.repeats),
        compute=ActorPoolStrategy(
            size=section.workers, max_tasks_in_flight_per_actor=2 * CALLS, max_concurrent_calls_per_actor=CALLS
        ),
        num_cpus=section.cpus_per_worker,
        label_selector=connect.selector(section.labels),
    )


class _RewardModelWorker:
    """Holds the reward model in one actor."""

    def __init__(self, section: RewardModelJudge, model: ModelSource):
        from zephyr_ray.judging.reward_judge import RewardModel

        device = "cuda" if section.gpus_per_worker else "cpu"
        self._model = RewardModel(model, batch_size=section.batch_size, device=device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return _without_failures(self._model.judge(batch.to_pylist()))


def _by_program(batch: pa.Table, *, function: str) -> pa.Table:
    from zephyr_ray.judging.function_judge import judge_by_program, load_judge

    judge = load_judge(function)
    return _without_failures([judge_by_program(row, judge, function) for row in batch.to_pylist()])


def _by_model(batch: pa.Table, *, chosen: str, rejected: str) -> pa.Table:
    from zephyr_ray.judging.delta_judge import judge_by_model

    return _without_failures([judge_by_model(row, chosen, rejected) for row in batch.to_pylist()])


def _without_failures(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{**row, "failure": None} for row in rows], schema=JUDGED)


def _check_scored(report: Report, artifact: Artifact) -> None:
    """Refuses judgments in which nothing is judged: a wrong judge would look like a finished stage.

    Raises:
        UserError: No completion has a score or a rating, with what the first row says of it.
    """
    if report.rows_out and not report.stats["completions_rated"]["sum"]:
        first = sources.read_first_row(artifact, kept_files(report.files)[0])
        complaints = [reply["complaint"] for reply in first["replies"] if reply["complaint"]]
        why = first["error"] or "; ".join(complaints[-1:]) or "the judge gave no score"
        raise UserError(f"{artifact.stage}: not one answer could be rated; the first row says: {why}")


class AgreementTally:
    """How far judges, repeats and orders agree, and how many overall scores lie far from the mean of the aspects."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()):
        self.agreement = {kind: AgreementCounter(kind) for kind in KINDS}
        self.disagreement = DisagreementCounter()
        for row in rows:
            self.disagreement.add(row)
            for counter in self.agreement.values():
                counter.add(row)

    def add(self, other: AgreementTally) -> None:
        """Adds everything that another one has counted."""
        for kind, counter in self.agreement.items():
            counter.merge(other.agreement[kind])
        self.disagreement.merge(other.disagreement)

    def result(self) -> dict[str, Any]:
        """The figures, as a manifest has them."""
        agreement = {
            kind: {aspect: figures._asdict() for aspect, figures in counter.result().items()}
            for kind, counter in self.agreement.items()
        }
        return agreement | {"disagreement": self.disagreement.result()}


def _count(kept: pa.Table) -> AgreementTally:
    return AgreementTally(kept.to_pylist())


def _counted(rows: pa.Table) -> tuple[pa.Table, AgreementTally]:
    """Rows as they are, and what is counted of those that are kept."""
    return rows, _count(rows.filter(rows["reason"].is_null()))


def _agreement_lines(agreement: dict[str, Any]) -> list[str]:
    """What a person sees: the overall rating where it was asked for, else the first aspect."""
    lines = []
    for kind in KINDS:
        figures = agreement.get(kind) or {}
        for aspect in [name for name in ("overall", *figures) if name in figures][:1]:
            found = figures[aspect]
            if found["same_order"] is not None:
                same, pairs = f"{found['same_order']:.0%}", f"{found['pairs']:,}"
                lines.append(f"  two {kind} put {same} of {pairs} pairs of answers in the same order ({aspect})")
    return lines


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    flat = pc.list_flatten(kept["completions"])
    ratings = [pc.struct_field(flat, ["annotations", aspect, "rating"]) for aspect in ASPECTS]
    scores = [pc.struct_field(flat, "overall_score"), *ratings]
    rated = functools.reduce(pc.or_, map(pc.is_valid, scores)).to_numpy()
    parents = pc.list_parent_indices(kept["completions"]).to_numpy()
    count = np.bincount(parents, weights=rated, minlength=kept.num_rows)
    return lengths.completions(kept) | {"completions_rated": count.astype(np.int64)}
