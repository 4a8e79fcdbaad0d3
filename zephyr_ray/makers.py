"""Reads a stage's context -> its artifact, and the manifest's own part. One function for each stage, by its name.

Heavy imports are inside: a job pays for those of the stages that it makes.
"""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zephyr_ray.artifacts import Artifact, Run
from zephyr_ray.models import ModelSource, model_source, stage_source
from zephyr_ray.recipe import Recipe

if TYPE_CHECKING:
    from zephyr_ray.data.reference_logps import Whose
    from zephyr_ray.data.sink import Report

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What a stage is made with."""

    recipe: Recipe
    run: Run
    artifact: Artifact
    progress: Any

    def input(self, stage: str) -> Artifact:
        return self.run.artifact(stage)

    def model(self) -> ModelSource:
        """The supervised model: DPO's start and reference."""
        return model_source(self.recipe, self.run)


def base(context: Context) -> Manifest:
    import pyarrow.fs as pafs

    from zephyr_ray.tiny.model import make_base

    scratch = tempfile.mkdtemp(prefix="zephyr-ray-base-")
    try:
        make_base(scratch, context.recipe.tiny, context.recipe.run.seed)
        target = posixpath.join(context.artifact.path, "checkpoint")
        context.run.filesystem.create_dir(target, recursive=True)
        pafs.copy_files(scratch, target, destination_filesystem=context.run.filesystem)
    finally:
        shutil.rmtree(scratch)
    return {"files": []}


def _examined(report: Report, max_dropped: float, artifact: Artifact) -> Manifest:
    """What the dataset doctor says of rows that were written, unless it refuses them."""
    from zephyr_ray.data import doctor

    doctor.check(report, max_dropped, artifact)
    return doctor.manifest(report) | {"lines": doctor.lines(report)}


def dialogues(context: Context) -> Manifest:
    from zephyr_ray.data.dialogues import make_dialogues

    report = make_dialogues(context.recipe, context.artifact, progress=context.progress)
    return _examined(report, context.recipe.dialogues.max_dropped, context.artifact)


def tokenized_dialogues(context: Context) -> Manifest:
    from zephyr_ray.data.tokenized_dialogues import make_tokenized_dialogues

    report = make_tokenized_dialogues(
        context.recipe,
        context.input("dialogues"),
        context.artifact,
        _base_model(context),
        progress=context.progress,
    )
    return _examined(report, context.recipe.dialogues.max_dropped, context.artifact)


def sft(context: Context) -> Manifest:
    from zephyr_ray.training.fit import train

    base = _base_model(context)
    return train(
        "sft", context.recipe, base, context.input("tokenized_dialogues"), None, context.artifact, context.progress
    )


def prompts(context: Context) -> Manifest:
    from zephyr_ray.data.prompts import make_prompts

    report = make_prompts(context.recipe, context.artifact, progress=context.progress)
    return _examined(report, context.recipe.prompts.max_dropped, context.artifact)


def candidates(context: Context) -> Manifest:
    from zephyr_ray.data.candidates import make_candidates

    report, lines = make_candidates(
        context.recipe, context.input("prompts"), context.artifact, progress=context.progress
    )
    made = _examined(report, 1.0, context.artifact)
    return made | {"lines": [*made["lines"], *lines]}


def judgments(context: Context) -> Manifest:
    from zephyr_ray.data.judgments import make_judgments
    from zephyr_ray.models import reward_model_source

    section = context.recipe.judging
    assert section is not None
    report, agreement, lines = make_judgments(
        context.recipe,
        context.input("candidates"),
        context.artifact,
        reward_model_source(section) if section.reward_model else None,
        progress=context.progress,
    )
    made = _examined(report, 1.0, context.artifact)
    return made | {"agreement": agreement, "lines": [*made["lines"], *lines]}


def preferences(context: Context) -> Manifest:
    from zephyr_ray.data.judgments import agreement_numbers
    from zephyr_ray.data.preferences import make_preferences

    judgments = context.input("judgments") if context.recipe.preferences.train == "judgments" else None
    agreement = agreement_numbers((judgments.manifest() or {}).get("agreement", {})) if judgments else None
    report = make_preferences(
        context.recipe, context.artifact, judgments, agreement=agreement, progress=context.progress
    )
    return _examined(report, context.recipe.preferences.max_dropped, context.artifact)


def tokenized(context: Context) -> Manifest:
    return _tokenized(context, "preferences")


def _tokenized(context: Context, pairs: str) -> Manifest:
    from zephyr_ray.data.tokenized import make_tokenized

    report = make_tokenized(
        context.recipe,
        context.input(pairs),
        context.artifact,
        context.model(),
        progress=context.progress,
    )
    return _examined(report, context.recipe.preferences.max_dropped, context.artifact)


def reference_logps(context: Context) -> Manifest:
    from zephyr_ray.data.reference_logps import make_reference_logps

    model = context.model()
    rows, files = make_reference_logps(
        context.recipe,
        context.input("tokenized"),
        context.artifact,
        model,
        progress=context.progress,
    )
    return {"files": files, "counts": {"in": rows, "out": rows, "dropped": {}}, "reference": model.fingerprint}


def held_out_pairs(context: Context) -> Manifest:
    from zephyr_ray.data.held_out_pairs import make_held_out_pairs
    from zephyr_ray.evaluation.preferences_stage import check_prompts

    report = make_held_out_pairs(
        context.recipe, context.input("preferences"), context.artifact, progress=context.progress
    )
    made = _examined(report, context.recipe.preferences.max_dropped, context.artifact)
    check_prompts(context.artifact, report.files)
    return made


def held_out_tokenized(context: Context) -> Manifest:
    return _tokenized(context, "held_out_pairs")


def held_out_reference(context: Context) -> Manifest:
    return _scored(context, context.model(), "ref")


def held_out_policy(context: Context) -> Manifest:
    return _scored(context, stage_source(context.input("dpo")), "policy")


def _scored(context: Context, model: ModelSource, whose: Whose) -> Manifest:
    """Log-probs of the held-out pairs."""
    from zephyr_ray.data.reference_logps import make_reference_logps
    from zephyr_ray.evaluation.preferences_stage import as_exported

    rows, files = make_reference_logps(
        as_exported(context.recipe),
        context.input("held_out_tokenized"),
        context.artifact,
        model,
        whose=whose,
        progress=context.progress,
    )
    return {"files": files, "counts": {"in": rows, "out": rows, "dropped": {}}, "model": model.fingerprint}


def evaluation_preferences(context: Context) -> Manifest:
    from zephyr_ray.evaluation.preferences_stage import make_preference_evaluation

    return make_preference_evaluation(
        context.recipe,
        context.input("held_out_pairs"),
        context.input("held_out_tokenized"),
        context.input("held_out_reference"),
        context.input("held_out_policy"),
        context.artifact,
    )


def dpo(context: Context) -> Manifest:
    from zephyr_ray.training.fit import train

    return train(
        "dpo",
        context.recipe,
        context.model(),
        context.input("tokenized"),
        context.input("reference_logps"),
        context.artifact,
        context.progress,
    )


def held_out(context: Context) -> Manifest:
    from zephyr_ray.evaluation.held_out_stage import make_held_out

    checkpoints = {stage: stage_source(context.input(stage)) for stage in ("base", "sft", "dpo")}
    return make_held_out(context.recipe, checkpoints, context.artifact, progress=context.progress)


def _base_model(context: Context) -> ModelSource:
    from zephyr_ray.models import base_source

    return base_source(context.recipe, context.run)
