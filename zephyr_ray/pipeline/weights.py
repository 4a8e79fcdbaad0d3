"""The identity of a checkpoint's weights. Training again by the same recipe may give others: on other hardware, or with
other code."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from zephyr_ray.pipeline.fingerprints import content_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.stage import Identity, Stage

_AT_ONCE = 8


def weights_id(folder: str) -> str:
    """A hash of the safetensors files of a local folder: about a second for a gigabyte and core, in threads."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = list(pool.map(lambda name: _digest(os.path.join(folder, name)), names))
    return content_id([[name, digest] for name, digest in zip(names, digests, strict=True)])


def input_weights(stage: Stage, known: Mapping[Stage, Identity], run: Run) -> dict[str, str]:
    """{"<input> weights": id} of the checkpoints of this run that a stage reads, as far as their manifests say.

    Where such a checkpoint is yet to be made, the id is the one that the stage was made from, if it is there: whether
    the stage is stale is known only when the checkpoint is there again.
    """
    made_from = (run.artifact(stage.name).manifest() or {}).get("inputs", {})
    found: dict[str, str] = {}
    for name, upstream in stage.inputs.items():
        if not (upstream.makes_model and stage.reads_weights):
            continue
        manifest = run.artifact(upstream.name).manifest()
        is_there = manifest is not None and manifest["fingerprint"] == known[upstream].fingerprint
        key = f"{name} weights"
        weights = manifest.get("weights") if manifest and is_there else made_from.get(key)
        if weights:
            found[key] = weights
    return found


def _digest(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
