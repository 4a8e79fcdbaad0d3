"""The methods of training, a file each. A method's file states, as `METHOD`, all that the rest asks of it.

Its name is that of its file, of its stage and of its section in the recipe. Every command reads these files, so that
they import nothing heavy at the top: what needs torch or TRL is imported where it is called.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import create_model

from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from zephyr_ray.config.training import Optimisation
    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows
    from zephyr_ray.training.sampler import RankPlan
    from zephyr_ray.training.settings import TrainingSettings


class Trainers(NamedTuple):
    """The classes that train by a method."""

    config: Any
    """TRL's configuration, which both take."""
    packed: Any
    """A trainer on packed rows (`packed.steps.PackedSteps`); None: there is none."""
    padded: Any = None
    """A trainer on padded batches (`trl_trainers.PlannedMixin`); None: there is none."""
    grouped: Any = None
    """As `packed`, on groups (`Method.groups`)."""


class Groups(NamedTuple):
    """How a method learns from groups (`schemas.GROUPS`): prompts, each with all of its completions and pairs."""

    load_rows: Callable[[Any, Artifact, Artifact | None], Rows]
    """A section, the groups and the reference's log-probs of their completions -> the rows to train on."""
    check: Callable[[Any], None]
    """Refuses a section whose loss, or layout, needs pairs one by one."""


@dataclass(frozen=True)
class Method:
    """What differs between methods, for a training loop that is the same for all. A section is the method's own."""

    name: str
    section: type[Optimisation]
    """Its section's class."""
    rows: Literal["dialogues", "pairs", "best_answers", "prompts", "unpaired"]
    """What it learns from: SFT's dialogues, beginning with the raw model (`sft.base`), or DPO's pairs, the best answers
    to prompts, its own completions of prompts, or completions with labels, with DPO's model."""
    meets_a_reference: bool
    """Whether it reads a reference's log-probs of its pairs. They are compared with its own, so that a pair must
    compute alike wherever it is packed."""
    length_field: str
    """The field of the recipe that bounds a row's tokens."""
    options: Callable[[Any], dict[str, Any]]
    """A section -> its fields, and what is fixed, under the names of `Trainers.config`."""
    load_rows: Callable[[Any, Artifact, Artifact | None], Rows]
    """A section, the tokenized rows or the prompts, and the reference's log-probs or the scores (`reads_scores`) of its
    pairs -> the rows to train on."""
    trainers: Callable[[], Trainers]
    """The trainers. They find the section as `self.section`."""
    makes_reward_model: bool = False
    """Whether its checkpoint is a reward model, a sequence classifier with one output, and no language model."""
    reads_scores: Callable[[Any], bool] = lambda section: False
    """Whether a section reads the scores that its pairs were made from (`preferences`)."""
    eval_steps: Callable[[Any], int | None] | None = None
    """A section -> the steps between evaluations of the loss on rows that are held out (None: an epoch's), where its
    trainers tell it (`row_losses`)."""
    packs: Callable[[Any], bool] = lambda section: True
    """Whether a section's rows can be packed."""
    rank_plan: Callable[[Any, int, int, int, int], RankPlan] | None = None
    """A section, the number of rows, a seed, a rank and the number of ranks -> the rank's micro-batches; None: those of
    `sampler.RankPlan`."""
    groups: Groups | None = None
    """How it learns from the completions of a prompt together, where every two of them are a pair
    (`preferences.rejected: every_pair`); None: pair by pair."""
    guards: Callable[[Any, TrainingSettings, str], Sequence[TrainerCallback]] = lambda trainer, settings, dtype: ()
    """A trainer, its settings and the dtype of its matrix products -> what stops a training that goes wrong."""
    passed: frozenset[str] = frozenset()
    """Options of TRL's that reach its trainer and do something there, beside those of every method (`trl_options`)."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """All other options of its TRL configuration, and what to do instead."""
    lacks: frozenset[str] = frozenset()
    """Options of every method's that its TRL configuration does not have."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """Metrics for a person's eyes while it trains, beside the loss: name in the log -> name on the screen."""


def method_of(name: str) -> Method:
    """The method of that name."""
    method: Method = importlib.import_module(f"{__name__}.{name}").METHOD
    return method


def methods() -> dict[str, Method]:
    """All methods by name: the modules of this folder."""
    return {module.name: method_of(module.name) for module in pkgutil.iter_modules(__path__)}


def load_recipe(files: Sequence[str], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe with any method's section. Arguments and errors as `config.loader.load`."""
    return loader.load(files, overrides, recipe_type())


def parse_recipe(text: str, name: str) -> Recipe:
    """As `load_recipe`, of a YAML text. Arguments and errors as `config.loader.parse`."""
    return loader.parse(text, name, recipe_type())


def recipe_type() -> type[Recipe]:
    """The recipe with a section, which may be left out, for each method that `Recipe` does not name."""
    others = {name: method for name, method in methods().items() if name not in Recipe.model_fields}
    sections: dict[str, Any] = {name: (method.section | None, None) for name, method in others.items()}
    return create_model("Recipe", __base__=Recipe, **sections) if sections else Recipe
