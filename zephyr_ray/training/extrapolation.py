"""ExPO (arXiv 2404.16792): a model beyond the aligned one, on the line from the model that alignment started from.

Of each weight, in float32:

    w = start + (1 + alpha) * (aligned - start)

Nothing is trained, so that another alpha takes as long as copying the weights.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator

import pyarrow.fs as pafs
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.lineage.facts import FILE as LINEAGE
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.pipeline.weights import weights_id
from zephyr_ray.training.model import whole_weights

_SUFFIX = ".safetensors"
_OF_THE_ALIGNED = ("README.md", LINEAGE)  # the stage has its own
_CARD = """---
library_name: transformers
tags: [zephyr_ray, expo]
---

# ExPO checkpoint

Extrapolated by zephyr_ray, not trained: weights {alpha:g} beyond those of the aligned model, on the line from the model
that its alignment started from (ExPO, arXiv 2404.16792). `{lineage}` says what made both.
"""


class Weights:
    """The tensors of a folder of safetensors files, by name; read one at a time."""

    def __init__(self, folder: str):
        self._file_of: dict[str, str] = {}
        for name in sorted(os.listdir(folder)):
            if name.endswith(_SUFFIX):
                path = os.path.join(folder, name)
                with safe_open(path, "pt") as stream:
                    self._file_of |= dict.fromkeys(stream.keys(), path)

    def read(self, name: str) -> torch.Tensor:
        """Raises UserError if there is none of that name."""
        if name not in self._file_of:
            raise UserError(f"expo: the model that dpo started from has no {name}; expo needs two models of one kind")
        with safe_open(self._file_of[name], "pt") as stream:
            return stream.get_tensor(name)


def write_checkpoint(start: ModelSource, aligned: ModelSource, alpha: float, output: Artifact) -> str:
    """Writes the extrapolated model as the output's checkpoint, with the tokenizer and settings of the aligned one.

    Args:
        start: The model that alignment started from.
        aligned: The aligned model.
        alpha: How far beyond it; 0 is the aligned model itself.
        output: The stage's artifact.

    Returns:
        The identity of the weights (`weights_id`).

    Raises:
        UserError: The models do not have the same weights by name and shape.
    """
    scratch = tempfile.mkdtemp(prefix="zephyr-ray-expo-")
    try:
        extrapolate(whole_weights(start.local(), start.revision), aligned.local(), scratch, alpha)
        with open(os.path.join(scratch, "README.md"), "w", encoding="utf-8") as card:
            card.write(_CARD.format(alpha=alpha, lineage=LINEAGE))
        weights = weights_id(scratch)
        target = posixpath.join(output.path, output.new_checkpoint())
        output.run.filesystem.create_dir(target, recursive=True)
        pafs.copy_files(scratch, target, destination_filesystem=output.run.filesystem)
    finally:
        shutil.rmtree(scratch)
    return weights


def extrapolate(start: str, aligned: str, target: str, alpha: float) -> None:
    """Writes to a local folder the model beyond `aligned`; a file at a time is in memory.

    Args:
        start: A local folder of whole weights.
        aligned: Another one.
        target: The folder, which is there. It gets the files of `aligned`, and the weights in its dtypes.
        alpha: As in the module's equation.

    Raises:
        UserError: As `write_checkpoint`.
    """
    before = Weights(start)
    for name in os.listdir(aligned):
        source = os.path.join(aligned, name)
        if name.endswith(_SUFFIX):
            tensors = {key: _beyond(before.read(key), tensor, alpha, key) for key, tensor in _tensors(source)}
            save_file(tensors, os.path.join(target, name), metadata={"format": "pt"})
        elif os.path.isfile(source) and name not in _OF_THE_ALIGNED:
            shutil.copy(source, target)


def _tensors(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, "pt") as stream:
        for key in stream.keys():  # noqa: SIM118 (it is no mapping)
            yield key, stream.get_tensor(key)


def _beyond(start: torch.Tensor, aligned: torch.Tensor, alpha: float, name: str) -> torch.Tensor:
    if start.shape != aligned.shape:
        raise UserError(
            f"expo: {name} is {tuple(start.shape)} in the model that dpo started from, and {tuple(aligned.shape)} in "
            "dpo's; expo needs two models of one shape"
        )
    if not aligned.is_floating_point():
        return aligned
    return torch.lerp(start.float(), aligned.float(), 1 + alpha).to(aligned.dtype)
