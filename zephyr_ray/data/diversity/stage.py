"""The stage `diversity`: how different from one another the dialogues are that teachers made.

Reads `generated_dialogues`, the seeds if there are any, and embeddings of the dialogues where the recipe names a model
of them. Writes diversity.json, the numbers, and report.html, a page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa

from zephyr_ray.data.diversity import report, sample
from zephyr_ray.data.diversity.distinct import Distinct
from zephyr_ray.data.diversity.measures import NEAR, Measures, as_json, measure
from zephyr_ray.data.io import file_tasks
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import DIALOGUES, EMBEDDINGS, PROMPTS

JSON, HTML = "diversity.json", "report.html"

_SEEDS = pa.schema([PROMPTS.field("prompt_id"), PROMPTS.field("messages")])


def stage(seed: int, dialogues: Stage, embeddings: Stage | None = None) -> Stage:
    """The stage `diversity`.

    Args:
        seed: The run's.
        dialogues: The stage `generated_dialogues`.
        embeddings: What embeds them, if the recipe has a model for that.
    """
    seeds = dialogues.inputs.get("seeds")
    inputs = {"dialogues": dialogues, "seeds": seeds, "embeddings": embeddings}

    def make(context: StageContext) -> Manifest:
        given = {name: context.input(name) for name in context.stage.inputs}
        return make_diversity(seed, context.artifact, **given)

    return Stage(
        "diversity",
        "dialogues",
        {"seed": seed},
        make,
        inputs={name: each for name, each in inputs.items() if each is not None},
    )


def make_diversity(
    seed: int,
    artifact: Artifact,
    dialogues: Artifact,
    seeds: Artifact | None = None,
    embeddings: Artifact | None = None,
) -> Manifest:
    """Writes the numbers and the page; returns the stage's part of the manifest.

    Args:
        seed: Of all samples.
        artifact: The output.
        dialogues: Rows of `schemas.DIALOGUES` whose `source` is method:teacher:origin.
        seeds: What they were made from (`schemas.PROMPTS`).
        embeddings: Of the dialogues (`schemas.EMBEDDINGS`).
    """
    methods = sample.methods(dialogues)
    parts = [
        sample.read(given, schema, seed) if given is not None else []
        for given, schema in ((dialogues, DIALOGUES), (seeds, _SEEDS), (embeddings, EMBEDDINGS))
    ]
    lengths = [len(part) for part in parts]
    (reference,) = file_tasks.start(_measured, [(seed, methods, lengths, *(each for part in parts for each in part))])
    (measures,) = file_tasks.get([reference])
    artifact.write_text(JSON, json.dumps({**as_json(measures), "seed": seed}, indent=2, ensure_ascii=False) + "\n")
    artifact.write_text(HTML, report.render(measures))
    return {"files": [JSON, HTML], "lines": lines(measures)}


def lines(measures: Measures) -> list[str]:
    """What a person sees when it is done."""
    of = "" if measures.measured == measures.dialogues else f" ({measures.measured:,} of them, drawn by seed)"
    found = [f"diversity of {measures.dialogues:,} dialogues{of}", _distinct_line(measures.distinct)]
    opening = measures.openings[max(measures.openings)][0]
    found.append(f"  most frequent opening: {opening.text} ({opening.share:.1%} of instructions)")
    if measures.embedded is not None:
        found.append(
            f"  {measures.embedded.near:.1%} are near another one (cosine > {NEAR}), NovelSum "
            f"{measures.embedded.novel_sum.by_proximity:.4f}"
        )
    return found


def _distinct_line(distinct: Mapping[str, list[Distinct]]) -> str:
    """Distinct-2 at the largest size that all have in common; of each at its largest, where there is none."""
    common = set.intersection(*({each.words for each in found} for found in distinct.values()))
    chosen = {
        who: next((each for each in reversed(found) if not common or each.words == max(common)), None)
        for who, found in distinct.items()
    }
    said = [
        f"{who} {each.shares[1]:.3f} (of {each.words:,} words)"
        for who, each in chosen.items()
        if each is not None and each.shares[1] is not None
    ]
    return f"  distinct-2: {', '.join(said)}"


def _measured(seed: int, methods: Mapping[str, int], lengths: list[int], *tables: pa.Table) -> Measures:
    """Measures a sample, whose dialogues, seeds and embeddings are in so many tables each."""
    taken = iter(tables)
    dialogues, seeds, embeddings = (
        sample.lowest(pa.concat_tables([next(taken) for _ in range(length)]), seed) if length else None
        for length in lengths
    )
    assert dialogues is not None
    return measure(
        dialogues, seeds, None if embeddings is None else sample.vectors_of(dialogues, embeddings), methods, seed
    )
