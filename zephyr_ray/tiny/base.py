"""The embedded world's base model, made from scratch."""

from __future__ import annotations

import posixpath
import shutil
import tempfile

from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.preload import ROWS, TRAINING
from zephyr_ray.recipe import Tiny
from zephyr_ray.section import semantic


def stage(section: Tiny, seed: int) -> Stage:
    """The stage `base`: a random model and a tokenizer that is learnt from the world's text."""

    def make(context: StageContext) -> Manifest:
        import pyarrow.fs as pafs

        from zephyr_ray.tiny.model import make_base

        scratch = tempfile.mkdtemp(prefix="zephyr-ray-base-")
        try:
            make_base(scratch, section, seed)
            target = posixpath.join(context.artifact.path, "checkpoint")
            context.run.filesystem.create_dir(target, recursive=True)
            pafs.copy_files(scratch, target, destination_filesystem=context.run.filesystem)
        finally:
            shutil.rmtree(scratch)
        return {"files": []}

    config = {"tiny": semantic(section), "seed": seed}
    return Stage("base", "files", config, make, preload=ROWS + TRAINING, makes_model=True)
