"""Preference pairs that are not trained on, made as `preferences` makes its own.

Pairs whose prompt is trained on are left out.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

import pyarrow.parquet as pq

from zephyr_ray.config.data import Preferences
from zephyr_ray.data.cleaning.benchmark_files import fingerprints
from zephyr_ray.data.cleaning.train_overlap import prompt_ids
from zephyr_ray.data.io import drop_report, sources
from zephyr_ray.data.io.rewrite import kept_files
from zephyr_ray.data.io.writer import Report, RowProgress
from zephyr_ray.data.preferences import settings, write_pairs
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

HELD_OUT_SPLIT = "test"
"""Split of a dataset that is given as text."""


def stage(section: Preferences, seed: int, preferences: Stage, earlier: Sequence[Stage] = ()) -> Stage:
    """The stage `held_out_pairs`; `preferences` are those that are trained on, and `earlier` those of rounds before."""
    assert section.held_out is not None
    trained_on = {"preferences": preferences} | {f"preferences of round {each.round}": each for each in earlier}
    outside = sources.OutsideRows("held_out", section.held_out)

    def make(context: StageContext) -> Manifest:
        read = section.model_copy(update={"held_out": outside.at_commits})
        pairs = [context.input(name) for name in trained_on]
        report = make_held_out_pairs(read, seed, pairs, context.artifact, progress=context.progress)
        made = drop_report.examined(report, section.max_dropped, context.artifact)
        check_prompts(context.artifact, report.files)
        return made

    held_out, split = sources.semantic_source(section.held_out, HELD_OUT_SPLIT)
    return Stage(
        "held_out_pairs",
        "rows",
        settings(section, {"held_out": held_out, "held_out_split": split}) | {"seed": seed},
        make,
        inputs=trained_on,
        outside=lambda: outside.fingerprints() | fingerprints(section.decontaminate, "preferences.decontaminate"),
        commits=outside.commits,
        local_files=sources.local_files("preferences.held_out", section.held_out),
    )


def make_held_out_pairs(
    section: Preferences,
    seed: int,
    preferences: Sequence[Artifact],
    artifact: Artifact,
    *,
    progress: RowProgress | None = None,
) -> Report:
    """Writes the pairs that `section.held_out` names, and their report.

    Args:
        section: What is read, and how pairs come of it.
        seed: Of the pairs that are drawn.
        preferences: What is trained on.
        artifact: What is written.
        progress: Told of rows as they are done.

    Raises:
        UserError: The data, or a file of benchmark prompts, is missing or cannot be read.
    """
    assert section.held_out is not None
    raw = sources.read_rows(section.held_out, HELD_OUT_SPLIT, seed)
    asked = section.model_copy(update={"train": section.held_out})
    return write_pairs(raw, asked, seed, artifact, trained_on=preferences, progress=progress)


def check_prompts(pairs: Artifact, files: Iterable[str]) -> None:
    """Refuses held-out pairs of fewer than two prompts, of which no interval can be told.

    Raises:
        UserError: They are.
    """
    paths = [posixpath.join(pairs.path, name) for name in kept_files(files)]
    prompts = {prompt_id for path in paths for prompt_id in prompts_of(pairs, path).values()}
    if len(prompts) < 2:
        raise too_few_prompts(len(prompts))


def prompts_of(pairs: Artifact, path: str) -> dict[str, str]:
    """The prompt's id of each pair of a file, by the pair's id, in the file's order."""
    found: dict[str, str] = {}
    with pq.ParquetFile(path, filesystem=pairs.run.filesystem) as file:
        for rows in file.iter_batches(columns=["pair_id", "prompt"]):
            found.update(zip(rows.column("pair_id").to_pylist(), prompt_ids(rows), strict=True))
    return found


def too_few_prompts(prompts: int) -> UserError:
    """That no interval can be told of so few prompts."""
    return UserError(
        f"preferences.held_out: the pairs that are left have {prompts} prompt, and an interval takes two or more; name "
        "more pairs"
    )
