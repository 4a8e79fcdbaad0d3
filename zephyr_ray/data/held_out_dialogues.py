"""Dialogues that are not trained on, made as `dialogues` makes its own: what SFT's loss is evaluated on.

Dialogues that open as one that is trained on are left out.
"""

from __future__ import annotations

from zephyr_ray.cluster.preload import CLEANING
from zephyr_ray.config.data import Dialogues
from zephyr_ray.config.section import semantic
from zephyr_ray.data.dialogues import examined, make_dialogues
from zephyr_ray.data.io import sources
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

HELD_OUT_SPLIT = "test"
"""Split of a dataset that is given as text."""


def stage(section: Dialogues, seed: int, dialogues: Stage) -> Stage:
    """The stage `held_out_dialogues`; `dialogues` are those that are trained on."""
    assert section.held_out is not None
    outside = sources.OutsideRows("held_out", section.held_out)

    def make(context: StageContext) -> Manifest:
        read = section.model_copy(update={"held_out": outside.at_commits})
        report = make_held_out_dialogues(
            read, seed, context.input("dialogues"), context.artifact, progress=context.progress
        )
        return examined(report, section.max_dropped, context.artifact)

    held_out, split = sources.semantic_source(section.held_out, HELD_OUT_SPLIT)
    return Stage(
        "held_out_dialogues",
        "rows",
        {
            "dialogues": semantic(section).without("train", "select").replaced(held_out=held_out, held_out_split=split),
            "seed": seed,
        },
        make,
        inputs={"dialogues": dialogues},
        outside=outside.fingerprints,
        commits=outside.commits,
        local_files=sources.local_files("dialogues.held_out", section.held_out),
        preload=CLEANING,
    )


def make_held_out_dialogues(
    section: Dialogues, seed: int, trained_on: Artifact, artifact: Artifact, *, progress: RowProgress | None = None
) -> Report:
    """Writes the dialogues that `section.held_out` names.

    Args:
        section: What is read, and how.
        seed: As of those that are trained on.
        trained_on: Those (`schemas.DIALOGUES`).
        artifact: What is written.
        progress: Told of rows as they are done.

    Raises:
        UserError: The data is missing or cannot be read.
    """
    asked = section.model_copy(update={"train": section.held_out, "select": None})
    return make_dialogues(asked, seed, artifact, progress=progress, split=HELD_OUT_SPLIT, trained_on=trained_on)
