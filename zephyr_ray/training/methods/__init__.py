"""The methods of training, a file each: its rows, the layout of a micro-batch, its loss, metrics and guards.

A method has the name of its stage, which is that of its section in the recipe and of its file here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows


@dataclass(frozen=True)
class Method:
    """What differs between methods, for a training loop that is the same for all. A file has it as `METHOD`.

    A section is the method's own in the recipe.
    """

    name: str
    config: Callable[..., Any]
    """TRL's configuration class."""
    options: Callable[[Any], dict[str, Any]]
    """A section -> its fields, and what is fixed, under TRL's names."""
    load_rows: Callable[[Any, Artifact, Artifact | None], Rows]
    """A section, the tokenized rows and the reference's log-probs -> the rows to train on."""
    padded: Callable[..., Any]
    """The trainer for padded batches."""
    packed: Callable[..., Any]
    """The trainer for packed rows."""
    packs: Callable[[Any], bool]
    """Whether a section's rows can be packed."""
    meets_a_reference: bool
    """Whether log-probs are compared with a reference's, so that a row must compute alike wherever it is packed."""
    length_field: str
    """The field of the recipe that bounds a row's tokens."""
    guards: Callable[[Any, Any, str], Sequence[TrainerCallback]]
    """A trainer, its section and the dtype of its matrix products -> what stops a training that goes wrong."""


def method_of(stage: str) -> Method:
    """The method of a training stage."""
    method: Method = importlib.import_module(f"{__name__}.{stage}").METHOD
    return method
