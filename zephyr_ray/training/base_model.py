"""A raw model that a function of the user's makes from scratch."""

from __future__ import annotations

import posixpath
import shutil
import tempfile

from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.config.section import Function, semantic
from zephyr_ray.pipeline import plugin
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.pipeline.weights import weights_id


def stage(field: str, section: Function, seed: int) -> Stage:
    """The stage `base`: `function(folder, seed=..., **options)` writes a Hugging Face folder with a tokenizer.

    Args:
        field: The field of the recipe that names the function.
        section: The function and its options.
        seed: The run's.
    """

    def make(context: StageContext) -> Manifest:
        import pyarrow.fs as pafs

        scratch = tempfile.mkdtemp(prefix="zephyr-ray-base-")
        try:
            plugin.load(field, section.function)(scratch, seed=seed, **section.options)
            weights = weights_id(scratch)
            target = posixpath.join(context.artifact.path, context.artifact.new_checkpoint())
            context.run.filesystem.create_dir(target, recursive=True)
            pafs.copy_files(scratch, target, destination_filesystem=context.run.filesystem)
        finally:
            shutil.rmtree(scratch)
        return {"files": [], "checkpoint": context.artifact.new_checkpoint(), "weights": weights}

    return Stage(
        "base",
        "files",
        {"base": semantic(section), "seed": seed},
        make,
        outside=lambda: plugin.fingerprints("function", field, section.function),
        preload=ROWS + TRAINING,
        makes_model=True,
    )
