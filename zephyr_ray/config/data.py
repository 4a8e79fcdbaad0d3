"""Rows from outside of a run: dialogues, preference pairs, and where they come from. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from zephyr_ray.config.section import Function, Section
from zephyr_ray.config.unions import LIST, MAPPING, TEXT


class Files(Section):
    """Files of rows, wherever they are."""

    type: Literal["files"]
    """Files, folders or URIs."""
    paths: tuple[str, ...] = Field(min_length=1)
    """Their paths; all files of a folder are read (docs/data.md)."""


class HubDataset(Section):
    """A dataset of the Hugging Face hub."""

    type: Literal["dataset"]
    """A dataset of the hub."""
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """The dataset's id, `owner/name`."""
    split: str = Field(min_length=1)
    """The split that is read."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit. None: the main branch."""


class RowFunction(Function):
    """A Python function that yields rows: `function(seed=run.seed, **options)`."""

    type: Literal["function"]
    """A function."""


def _form(value: Any) -> str:
    return TEXT if isinstance(value, str) else LIST if isinstance(value, list | tuple) else MAPPING


Source = Annotated[
    Annotated[str, Tag(TEXT)]
    | Annotated[tuple[str, ...], Tag(LIST)]
    | Annotated[Annotated[Files | HubDataset | RowFunction, Field(discriminator="type")], Tag(MAPPING)],
    Discriminator(_form),
]
"""Where rows come from. Text is the path of a file or folder, a URI, or a dataset's id (`owner/name`,
`owner/name@revision`); a list names several of them."""


class Dialogues(Section):
    train: Source | None = None
    """Dialogues to learn from: files, folders, a dataset or a function, in any known layout (docs/data.md)."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Refuse to train when a larger share of the rows was dropped."""


class Preferences(Section):
    train: Source | None = None
    """`judgments` (this run's own), or files, folders, a dataset or a function, in any known layout (docs/data.md)."""
    held_out: Source | None = None
    """Pairs that are not trained on, named as in `train`. DPO then ends with how often, and by how much, its implicit
    reward prefers their chosen answers (docs/evaluation.md)."""
    score: Literal["overall", "aspects"] = "overall"
    """What ranks several answers: the overall rating, or the mean of the aspects' ratings."""
    rejected: Literal["random_lower", "lowest", "every_pair"] = "random_lower"
    """Which answers are y_l where a row has several scored ones: a random one below the best (Zephyr), the lowest one,
    or every two answers as a pair of their own."""
    margin: float = Field(0.0, ge=0)
    """Scores of a pair must differ by more than this; 0: by anything."""
    disagreement: float | None = Field(None, gt=0, le=1)
    """Leave answers out whose overall rating and mean of aspects differ by more than this share of their scales.
    None: they are only counted, at 0.5."""
    decontaminate: tuple[str, ...] = ()
    """Files of benchmark prompts (JSON lines, JSON or text): a row whose prompt holds one of them is dropped."""
    decontaminate_words: int = Field(13, ge=3)
    """Words in a row that a prompt may not share with a benchmark prompt."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Refuse to train when a larger share of the rows, or of the held-out ones, was dropped."""

    @field_validator("held_out")
    @classmethod
    def _other_pairs(cls, value: Any) -> Any:
        if value == "judgments":
            raise ValueError("the run's own judgments are trained on; name files, a folder or a dataset id")
        return value


class Tokenized(Section):
    max_length: int = Field(1024, ge=4)
    """Tokens of prompt + completion; the completion loses its tail and then gets no end-of-sequence token.
    With zephyr_legacy both completions of a pair that is too long keep max_length - max_prompt_length tokens."""
    max_prompt_length: int = Field(512, ge=1)
    """Tokens of the prompt; a longer one keeps its end (with zephyr_legacy only where the pair would be too long)."""

    @model_validator(mode="after")
    def _room_for_a_completion(self) -> Tokenized:
        if self.max_prompt_length >= self.max_length:
            raise ValueError(
                f"max_prompt_length={self.max_prompt_length} leaves no room for a completion in "
                f"max_length={self.max_length}"
            )
        return self
