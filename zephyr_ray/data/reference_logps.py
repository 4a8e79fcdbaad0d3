"""Log-probs of tokenized pairs, or groups, under the frozen reference model, by a pool of Ray Data actors.

Computed once per (reference model, tokenized rows) and shared by every epoch and every beta. Log-probs are written as
they are computed, so that a rerun after a kill computes only the pairs that were in flight. Held-out pairs are scored
in the same way, by the reference and by the policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.config.model import Chat
from zephyr_ray.config.training import ReferenceLogps
from zephyr_ray.data.io import drop_report
from zephyr_ray.data.io.rows import all_kept
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.scored_rows import write_scores
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput, ModelSource
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import GROUP_LOGPS, REFERENCE_LOGPS
from zephyr_ray.training.arithmetic import Scoring

Whose = Literal["ref", "policy"]
"""Begins the names of the columns."""


def stage(
    section: ReferenceLogps,
    scoring: Scoring,
    chat: Chat,
    tokenized: Stage,
    model: ModelInput,
    check_groups: Callable[[], None] | None = None,
) -> Stage:
    """The stage `reference_logps`: of the pairs that a policy is trained on, as its loss reads them.

    Args:
        section: The actors.
        scoring: How the policy's own log-probs are computed.
        chat: The template of the model's tokenizer.
        tokenized: The pairs, or their groups.
        model: The reference.
        check_groups: Of groups: refuses settings that they cannot be trained by.
    """
    config = settings(section, scoring)
    if check_groups is None:
        return scored_stage("reference_logps", section, scoring, chat, config, tokenized, model, "ref")
    made = scored_stage("reference_logps", section, scoring, chat, config, tokenized, model, "ref", GROUPED)
    return replace(made, check=check_groups)


def settings(section: ReferenceLogps, scoring: Scoring) -> dict[str, Any]:
    """What the reference's log-probs are made from, as JSON values."""
    counted = {"ld_alpha": scoring.ld_alpha, "load_in_4bit": scoring.load_in_4bit}
    return counted | {"arithmetic": scoring.identity(device_of(section))}


def held_out_stage(
    kind: str,
    section: ReferenceLogps,
    scoring: Scoring,
    chat: Chat,
    tokenized: Stage,
    model: ModelInput,
    whose: Whose,
    tokenized_by: ModelInput | None = None,
) -> Stage:
    """A stage that scores held-out pairs as `Scoring.of_exported` says: by the reference or by a policy.

    Args:
        kind: The stage's.
        section: The actors.
        scoring: How DPO's own log-probs are computed.
        chat: The template of the model's tokenizer.
        tokenized: The pairs.
        model: Who scores them.
        whose: What the model is.
        tokenized_by: Of a model from outside: the one whose tokenizer made the pairs' ids, which must be its own too.
    """
    config = {"arithmetic": scoring.identity(device_of(section))}
    made = scored_stage(kind, section, scoring.of_exported(), chat, config, tokenized, model, whose)
    if tokenized_by is None:
        return made

    def make(context: StageContext) -> Manifest:
        check_tokenizer(model.field, model.source(context.run), tokenized_by.source(context.run))
        return made.make(context)

    return replace(made, make=make)


def check_tokenizer(field: str, model: ModelSource, other: ModelSource) -> None:
    """Holds a model's tokenizer against that of the model by whose token ids it is to be scored.

    Raises:
        UserError: A token of the other one is not the same here, so that the ids mean something else.
    """
    from transformers import AutoTokenizer

    own, wanted = (
        AutoTokenizer.from_pretrained(each.without_weights(), revision=each.revision).get_vocab()
        for each in (model, other)
    )
    different = sum(own.get(token) != number for token, number in wanted.items())
    if different:
        raise UserError(
            f"{field}: {different:,} of {len(wanted):,} tokens of the model that DPO starts from are others in the "
            f"tokenizer of {model.path}; the two cannot be compared by token ids"
        )


def device_of(section: ReferenceLogps) -> Literal["cpu", "cuda"]:
    """Where its actors compute."""
    return "cuda" if section.gpus_per_worker > 0 else "cpu"


def scored_stage(
    kind: str,
    section: ReferenceLogps,
    scoring: Scoring,
    chat: Chat,
    config: dict[str, Any],
    tokenized: Stage,
    model: ModelInput,
    whose: Whose,
    layout: Layout | None = None,
) -> Stage:
    """A stage that writes a model's log-probs of pairs, or of rows of a layout."""

    def make(context: StageContext) -> Manifest:
        source, pairs = model.source(context.run), context.input(tokenized.kind)
        report = make_reference_logps(
            section, scoring, chat, pairs, context.artifact, source, whose, layout, progress=context.progress
        )
        scored = {"reference" if kind.endswith("reference_logps") else "model": source.fingerprint}
        return drop_report.manifest(report) | scored

    return Stage(
        kind,
        "prompts" if layout else "pairs",
        config,
        make,
        inputs={tokenized.kind: tokenized, **model.inputs},
        outside=model.outside,
        commits=model.commits,
        local_files=model.local_files,
        resources=(resources.of_workers("reference_logps", section, section.workers),),
        preload=ROWS + TRAINING,
    )


class ReferenceModel:
    """Holds a frozen model in one actor and answers batches of pairs with their log-probs."""

    def __init__(self, section: ReferenceLogps, scoring: Scoring, chat: Chat, source: ModelSource, whose: Whose):
        from zephyr_ray.training.logps import scorer
        from zephyr_ray.training.model import device_of_actor

        device = device_of_actor(section.cpus_per_worker, section.gpus_per_worker, "reference_logps")
        self.scorer: Any = scorer(scoring, chat, source, device)
        self.whose = whose

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`schemas.TOKENIZED` rows -> `rows.mixed_schema` of `logps_schema` rows."""
        chosen, rejected = self.scorer(batch.select(["prompt_ids", "chosen_ids", "rejected_ids"]).to_pylist())
        return all_kept([batch["pair_id"], pa.array(chosen), pa.array(rejected)], logps_schema(self.whose))


class ReferenceOfGroups(ReferenceModel):
    """As `ReferenceModel`, of groups."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`schemas.GROUPS` rows -> `rows.mixed_schema` of `schemas.GROUP_LOGPS` rows."""
        sums = self.scorer.completions(batch.select(["prompt_ids", "completions"]).to_pylist())
        return all_kept([batch["group_id"], pa.array(sums, pa.list_(pa.float32()))], GROUP_LOGPS)


class Layout(NamedTuple):
    """The rows that are scored, where they are no pairs."""

    id_column: str
    schema: pa.Schema
    actor: type[ReferenceModel]
    arguments: Callable[[Artifact], tuple[Any, ...]] = lambda rows: ()
    """The rows -> further ones of its constructor."""


GROUPED = Layout("group_id", GROUP_LOGPS, ReferenceOfGroups)


def logps_schema(whose: Whose) -> pa.Schema:
    """`schemas.REFERENCE_LOGPS`, with the columns named for whose log-probs they are."""
    return pa.schema([field.with_name(field.name.replace("ref_", f"{whose}_")) for field in REFERENCE_LOGPS])


def make_reference_logps(
    section: ReferenceLogps,
    scoring: Scoring,
    chat: Chat,
    tokenized: Artifact,
    artifact: Artifact,
    model: ModelSource,
    whose: Whose = "ref",
    layout: Layout | None = None,
    *,
    progress: Any = None,
) -> Report:
    """Writes a model's log-probs of every pair (or row of a layout), beside those that an earlier try wrote.

    Raises:
        RuntimeError: The files do not hold every pair exactly once.
        UserError: The model cannot be packed.
    """
    import ray

    if scoring.engine == "packed":
        # In a worker: it loads libraries that this process has no other use for.
        check = ray.remote(_check_model).options(num_cpus=0, scheduling_strategy=connect.this_node())
        ray.get(check.remote(model))
    id_column, schema, actor, further = layout or Layout("pair_id", logps_schema(whose), ReferenceModel)
    arguments = (section, scoring, chat, model, whose, *further(tokenized))
    return write_scores(section, tokenized, artifact, id_column, schema, actor, arguments, progress=progress)


def _check_model(model: ModelSource) -> None:
    from zephyr_ray.training.packed.check import check_folder

    check_folder(model.without_weights(), model.revision)
