"""Dialogues that teachers make: by Self-Instruct, self-prompting, a simulated user, or Magpie (docs/generation.md).

A planned dialogue is a row: it becomes a dialogue, or is dropped with a reason. Each of its requests depends on the
replies before it, so that a request is known by its content, and a resumed run finds every reply that was paid.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.preload import ENGINES, ROWS
from zephyr_ray.cluster.shared_storage import local_folder
from zephyr_ray.config.feedback import Endpoint, Prompts
from zephyr_ray.config.generation import Generation, Magpie, SelfInstruct
from zephyr_ray.config.model import Chat
from zephyr_ray.config.section import semantic
from zephyr_ray.data import prompts
from zephyr_ray.data.cleaning.dedup import drop_repeated
from zephyr_ray.data.io import drop_report, lengths, sources, writer
from zephyr_ray.data.io.rows import dropped_row, mixed_schema
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.data.request_stage import REASONS, Asking, asking, settle, totals_line
from zephyr_ray.errors import UserError
from zephyr_ray.generation import plan
from zephyr_ray.generation.pool import REQUESTS, DialoguePool, RequestPool, TeacherPool
from zephyr_ray.generation.prompts import fingerprint
from zephyr_ray.generation.self_instruct import Instructions, Request
from zephyr_ray.inference.pool import CALLS, in_flight_share, rows_per_batch
from zephyr_ray.inference.request_plan import Completion
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id, fingerprint_files
from zephyr_ray.pipeline.model_source import ModelSource, PoolModels, pool_models, stage_source
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import DIALOGUES, Dropped, Reason

if TYPE_CHECKING:
    import ray.data

_ID = "source"  # a dialogue has no id before it is made
_ROWS_PER_TASK = 4096
_OWN_TEMPLATE = Chat(template="model")
_TOKENIZER_FILES = ("tokenizer", "chat_template", "special_tokens", "added_tokens", "vocab", "merges")


def stages(section: Generation, seed: int, models: Mapping[str, Stage]) -> list[Stage]:
    """The stages `seeds`, where a method needs them, and `generated_dialogues`.

    Args:
        section: The teachers, and how they make dialogues.
        seed: The run's.
        models: The stages of this run whose checkpoints may be teachers, by name.

    Raises:
        UserError: A teacher is a stage that it may not be.
    """
    given = section.seeds
    seeds = None if given is None else prompts.stage(Prompts(train=given), seed, "seeds", "generation.seeds")
    made = _stage(section, seed, models, seeds)
    return [made] if seeds is None else [seeds, made]


def _stage(section: Generation, seed: int, models: Mapping[str, Stage], seeds: Stage | None) -> Stage:
    pool = pool_models("generation.pool", section.pool, models)

    def make(context: StageContext) -> Manifest:
        asked = section.model_copy(update={"pool": pool.at_commits(section.pool)})
        report, lines = make_generated_dialogues(asked, seed, _tokenizers(asked, pool, context), context)
        made = drop_report.examined(report, section.max_dropped, context.artifact)
        return made | {"lines": [*made["lines"], *lines]}

    config = semantic(section).without("seeds")
    return Stage(
        "generated_dialogues",
        "dialogues",
        {"generation": config, "prompts": fingerprint(), "seed": seed},
        make,
        inputs=({} if seeds is None else {"seeds": seeds}) | pool.inputs,
        outside=lambda: pool.outside() | _tokenizer_fingerprints(section),
        commits=pool.commits,
        local_files=(*pool.local_files, *_tokenizer_folders(section)),
        resources=(
            *resources.of_engines("generation.pool", section.deployments),
            resources.of_workers("generation", section, section.workers),
        ),
        preload=ROWS + ENGINES if section.deployments else ROWS,
    )


def make_generated_dialogues(
    section: Generation, seed: int, tokenizers: Mapping[str, TokenizerSource], context: StageContext
) -> tuple[Report, list[str]]:
    """Writes the dialogues, and says in lines what that took.

    Args:
        section: The teachers, and how they make dialogues.
        seed: The run's.
        tokenizers: Of the teachers, by name, if a method needs them.
        context: The stage's, with the input `seeds` if a method needs them.

    Raises:
        UserError: Dialogues are left that the next run can make: servers that fail, or a spent budget.
    """
    import ray

    artifact, wanted = context.artifact, section.planned
    with asking(section, wanted, context, _ID) as asked:
        worker = functools.partial(_by_teachers, section, seed, tokenizers, asked)
        seeds = _seeds(context)
        found = _instructions(section, seed, seeds, worker, asked, artifact)
        rows = worker(_left(section, seed, seeds, found, asked), DialoguePool)
        split = functools.partial(to_rows, progress=context.progress)
        per_file = writer.rows_per_file(wanted)
        rows = rows.map_batches(split, batch_format="pyarrow", batch_size=None)
        report = writer.write(rows, artifact, DIALOGUES, measure=_measure, keep=True, rows_per_file=per_file)
        settle("generation", section, wanted, asked, artifact, report, _ID)
        lines = [totals_line(ray.get(asked.ledger.totals.remote()))]
    report = drop_repeated(artifact, report, "dialogue_id")
    report.noted = {} if found is None else {"rounds": found.round, **dict(sorted(found.left_out.items()))}
    return report, lines


def to_rows(made: pa.Table, progress: RowProgress | None = None) -> pa.Table:
    """`generation.pool.MADE` -> dialogues that are kept and rows that are dropped."""
    rows = []
    for row in made.to_pylist():
        failure, reason, detail = row.pop("failure"), row.pop("reason"), row.pop("detail")
        if failure or reason:
            rows.append(dropped_row(row["source"], Dropped(REASONS[failure] if failure else Reason(reason), detail)))
        else:
            rows.append(row)
    if progress is not None:
        progress.add(len(rows))
    return pa.Table.from_pylist(rows, schema=mixed_schema(DIALOGUES))


def _measure(kept: pa.Table) -> dict[str, np.ndarray]:
    return lengths.characters(kept, ("messages",)) | {"turns": pc.list_value_length(kept["messages"]).to_numpy() // 2}


def _seeds(context: StageContext) -> list[dict[str, Any]]:
    """The seeds in the order of their ids; none where no method needs them."""
    if "seeds" not in context.stage.inputs:
        return []
    return context.input("seeds").table().sort_by("prompt_id").to_pylist()


def _instructions(
    section: Generation,
    seed: int,
    seeds: Sequence[Mapping[str, Any]],
    worker: Any,
    asked: Asking,
    artifact: Artifact,
) -> Instructions | None:
    """Self-Instruct's instructions; None where it is not a method.

    Raises:
        UserError: Requests are left that the next run can mend. Later rounds would show what their replies lack.
    """
    import ray.data

    method = next((method for method in section.methods if isinstance(method, SelfInstruct)), None)
    if method is None:
        return None
    found = Instructions(method, seed, [row["messages"][-1]["content"] for row in seeds])
    while not found.are_complete:
        requests = found.next_round()
        rows = [
            {"prompt_id": each.id, "teacher": plan.teacher_of(section, seed, each.id), "text": each.text}
            for each in requests
        ]
        replies = worker(ray.data.from_arrow(pa.Table.from_pylist(rows, schema=REQUESTS)), RequestPool).take_all()
        _check_answered(section, found.round, replies, asked, artifact)
        found.read(requests, _in_order(requests, replies))
    return found


def _in_order(requests: Sequence[Request], replies: Sequence[Mapping[str, Any]]) -> list[Completion | None]:
    by_id = {row["prompt_id"]: row for row in replies}
    rows = [by_id[request.id] for request in requests]
    return [None if row["failure"] else Completion(row["content"], row["finish_reason"], None) for row in rows]


def _check_answered(
    section: Generation, number: int, replies: Sequence[Mapping[str, Any]], asked: Asking, artifact: Artifact
) -> None:
    """Raises UserError where a request of a round has no reply that another try may get."""
    import ray

    failed = [row for row in replies if row["failure"] not in (None, "refused")]
    if not failed:
        return
    totals = ray.get(asked.ledger.totals.remote())
    again = "the replies are kept; the same command goes on"
    if any(row["failure"] == "over_budget" for row in failed):
        raise UserError(
            f"{artifact.stage}: the budget is spent ({totals['usd']:.2f} of {section.budget_usd:g} US dollars); raise "
            f"generation.budget_usd; {again}"
        )
    raise UserError(
        f"{artifact.stage}: {len(failed):,} of {len(replies):,} requests for instructions in round {number} failed "
        f"({failed[0]['error']}); {again}"
    )


def _left(
    section: Generation, seed: int, seeds: Sequence[dict[str, Any]], found: Instructions | None, asked: Asking
) -> ray.data.Dataset:
    """The planned dialogues (`plan.PLANNED`) that are not done."""
    parts = [
        {"method": method.type, "start": start, "stop": min(start + _ROWS_PER_TASK, method.dialogues)}
        for method in section.methods
        for start in range(0, method.dialogues, _ROWS_PER_TASK)
    ]
    instructions = [] if found is None else found.accepted
    of_range = functools.partial(_planned, section=section, seed=seed, seeds=seeds, instructions=instructions)
    return sources.stream(parts, functools.partial(_not_done, planned=of_range, done=asked.done))


def _planned(part: Mapping[str, Any], **given: Any) -> pa.Table:
    section = given["section"]
    method, numbers = section.method(part["method"]), range(part["start"], part["stop"])
    rows = plan.planned(section, given["seed"], method, numbers, given["seeds"], given["instructions"])
    return pa.Table.from_pylist(list(rows), schema=plan.PLANNED)


def _not_done(batch: pa.Table, *, planned: Any, done: Any) -> Iterator[pa.Table]:
    (part,) = batch.to_pylist()
    rows = planned(part)
    yield rows.filter(pa.array(~done.has(rows[_ID]))) if len(done) else rows


def _by_teachers(
    section: Generation,
    seed: int,
    tokenizers: Mapping[str, TokenizerSource],
    asked: Asking,
    rows: ray.data.Dataset,
    pool: type[TeacherPool],
) -> ray.data.Dataset:
    """What fixed actors make of rows: each has its share of every teacher's bound, so there are never more of them."""
    from ray.data import ActorPoolStrategy

    busiest = max(in_flight_share(member, section.workers) for member in section.pool)
    return rows.map_batches(
        pool,
        fn_constructor_kwargs={
            "section": section,
            "run_seed": seed,
            "applications": asked.applications,
            "tokenizers": tokenizers,
            "ledger": asked.ledger,
        },
        batch_format="pyarrow",
        batch_size=rows_per_batch(busiest, 1 / len(section.pool)),
        compute=ActorPoolStrategy(
            size=section.workers, max_tasks_in_flight_per_actor=2 * CALLS, max_concurrent_calls_per_actor=CALLS
        ),
        num_cpus=section.cpus_per_worker,
        label_selector=connect.selector(section.labels),
    )


def _magpie(section: Generation) -> Magpie | None:
    return next((method for method in section.methods if isinstance(method, Magpie)), None)


def _tokenizers(section: Generation, pool: PoolModels, context: StageContext) -> dict[str, TokenizerSource]:
    """The tokenizers of all teachers by name, with the templates that came with them, if magpie needs them."""
    method = _magpie(section)
    if method is None:
        return {}
    outside = {each.name: each for each in pool.external}
    found = {}
    for member in section.pool:
        if isinstance(member, Endpoint):
            path = method.tokenizers[member.name]
            source = ModelSource(os.path.abspath(path) if os.path.isdir(path) else path)
        elif member.name in outside:
            source = outside[member.name].source(context.run)
        else:
            source = stage_source(context.input(member.model))
        found[member.name] = TokenizerSource(source, _OWN_TEMPLATE)
    return found


def _tokenizer_folders(section: Generation) -> tuple[tuple[str, str], ...]:
    method = _magpie(section)
    paths = {} if method is None else method.tokenizers
    return tuple(found for name, path in paths.items() for found in local_folder(_field(name), path))


def _tokenizer_fingerprints(section: Generation) -> dict[str, str]:
    """Of the tokenizers of endpoints: of the files in a folder, or of a hub id.

    Raises:
        UserError: A path is no folder with a tokenizer.
    """
    method = _magpie(section)
    paths = {} if method is None else method.tokenizers
    return {f"{name} tokenizer": _of_tokenizer(name, path) for name, path in paths.items()}


def _of_tokenizer(name: str, path: str) -> str:
    if not os.path.isdir(path):
        if os.path.exists(path) or path.startswith(("/", "./", "../", "~")) or path.count("/") != 1:
            raise UserError(f"{_field(name)}={path} is not a folder; give a folder with a tokenizer, or a hub id")
        return content_id("hub", path)
    files = sorted(each for each in os.listdir(path) if each.startswith(_TOKENIZER_FILES))
    if not files:
        raise UserError(f"{_field(name)}={path} holds no tokenizer; save the tokenizer of the endpoint's model there")
    return fingerprint_files([os.path.join(os.path.abspath(path), each) for each in files])


def _field(name: str) -> str:
    return f"generation.methods magpie.tokenizers.{name}"
