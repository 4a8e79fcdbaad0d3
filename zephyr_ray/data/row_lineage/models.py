"""The models that learned from a row, and how often each saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zephyr_ray.data.row_lineage import lookup
from zephyr_ray.data.row_lineage.facts import ModelUse
from zephyr_ray.pipeline.lineage.facts import StageFacts, is_replaced
from zephyr_ray.training.sampler import Plan

if TYPE_CHECKING:
    from zephyr_ray.data.row_lineage.trace import Rows


def models_of(
    stages: Mapping[str, StageFacts], holders: Mapping[str, Rows], spots: Mapping[str, Sequence[lookup.Spot]]
) -> tuple[ModelUse, ...]:
    """The models that were trained on a row.

    Args:
        stages: The run's.
        holders: Those with rows.
        spots: Where the row is in each of them.
    """
    models = [each for each in stages.values() if each.is_model and not is_replaced(each.stage)]
    found = []
    for model in models:
        section = _section(model)
        tokenized = {each.stage for each in model.inputs if each.stage and _is_trained_on(each.stage)}
        for name in sorted(tokenized & {*holders}) if section else ():
            for spot in spots.get(name, ()):
                times = times_trained(holders[name], spot, section, model.seed or 0)
                after = tuple(_trained_from(model.stage, models))
                found.append(ModelUse(model.stage, spot.value, name, times, model.finished, after))
    return tuple(found)


def times_trained(rows: Rows, spot: lookup.Spot, section: Mapping[str, Any], seed: int) -> int | None:
    """How often a training takes a row, by the plan of its steps (`sampler.Plan`); None where rows are joined.

    Args:
        rows: What is trained on. Its rows are numbered in the order of their ids.
        spot: The row, or the group that has it.
        section: The method's settings.
        seed: The run's.
    """
    if section.get("packing_strategy") == "wrapped" or rows.facts.counts is None:
        return None
    column = next(name for name in ("group_id", *lookup.ID_COLUMNS) if name in rows.columns)
    number = lookup.smaller(rows.artifact, rows.files, column, rows.row(spot)[column])
    plan = Plan(rows.facts.counts.rows_out, section["global_batch"], section["epochs"], seed, section.get("max_steps"))
    return int(plan.times_seen()[number])


def _section(model: StageFacts) -> Mapping[str, Any]:
    """The settings of a model's training; empty where it was not trained."""
    config = model.config if isinstance(model.config, Mapping) else {}
    section = config.get((model.kind or model.stage).rpartition("/")[2])
    return section if isinstance(section, Mapping) and "global_batch" in section else {}


def _is_trained_on(stage: str) -> bool:
    """Whether a stage's rows are those of the training, not beside it as reference log-probs are."""
    return "tokenized" in stage.rpartition("/")[2]


def _trained_from(model: str, models: Sequence[StageFacts]) -> list[str]:
    """The models whose training began with this one, directly or not."""
    after: list[str] = []
    for each in models:
        if each.stage not in after and any(one.stage in (model, *after) for one in each.inputs):
            after.append(each.stage)
    return after
