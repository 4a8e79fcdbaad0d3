"""Rows from outside of a run: dialogues, preference pairs, and where they come from. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from zephyr_ray.config.cleaning import CleaningStep, NearDuplicates
from zephyr_ray.config.section import Function, Section
from zephyr_ray.config.selection import Selection
from zephyr_ray.config.unions import LIST, MAPPING, TEXT, form_of


class Files(Section):
    """Files of rows, wherever they are."""

    type: Literal["files"]
    """Rows from files."""
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders and URIs; all data files in a folder are read (docs/data.md)."""


class HubDataset(Section):
    """A dataset of the Hugging Face hub."""

    type: Literal["dataset"]
    """Rows from a dataset of the hub."""
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Id of the dataset, `owner/name`."""
    split: str = Field(min_length=1)
    """Split to read."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit. None: the default branch."""


class RowFunction(Function):
    """A Python function that yields rows: `function(seed=run.seed, **options)`."""

    type: Literal["function"]
    """Rows from a function."""


Source = Annotated[
    Annotated[str, Tag(TEXT)]
    | Annotated[tuple[str, ...], Tag(LIST)]
    | Annotated[Annotated[Files | HubDataset | RowFunction, Field(discriminator="type")], Tag(MAPPING)],
    Discriminator(form_of),
]
"""Where rows come from. Text is the path of a file or folder, a URI, or a dataset's id (`owner/name`,
`owner/name@revision`); a list names several of them."""


class Dialogues(Section):
    train: Source | None = None
    """Dialogues to learn from: `generated` (this run's own, of `generation`), or files, folders, a dataset or a
    function, in any known layout (docs/data.md)."""
    steps: tuple[CleaningStep, ...] = ()
    """What is done to each dialogue, in this order, each kind of step at most once (docs/cleaning.md)."""
    near_duplicates: NearDuplicates | None = None
    """Drop all but one of dialogues with almost the same words (docs/cleaning.md). None: only exact repeats go."""
    select: Selection | None = None
    """Learn from some of the dialogues that are left, and how they are chosen (docs/selection.md). None: from all."""
    held_out: Source | None = None
    """Dialogues on which SFT's loss is evaluated while it trains, given as in `train` and never trained on
    (docs/evaluation.md)."""
    decontaminate: tuple[str, ...] = ()
    """Files of benchmark prompts (JSON lines, JSON, CSV or text). A dialogue that contains one of them is dropped
    (docs/cleaning.md)."""
    decontaminate_words: int = Field(13, ge=3)
    """How many words in a row a message must share with a longer benchmark prompt for that."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Stop with an error if a larger share of the rows is dropped."""

    @field_validator("steps")
    @classmethod
    def _each_kind_once(cls, value: tuple[CleaningStep, ...]) -> tuple[CleaningStep, ...]:
        kinds = [step.type for step in value]
        again = {kind for kind in kinds if kinds.count(kind) > 1}
        if again:
            raise ValueError(f"{', '.join(sorted(again))}: a kind of step is given once at most")
        return value


class Preferences(Section):
    train: Source | None = None
    """Pairs to train on: `judgments` (this run's own), or files, folders, a dataset or a function, in any known layout
    (docs/data.md)."""
    held_out: Source | None = None
    """Pairs to evaluate on, given as in `train` and never trained on. DPO then reports how often, and by how much, its
    implicit reward prefers their chosen completions (docs/evaluation.md)."""
    score: Literal["overall", "aspects"] = "overall"
    """What ranks the completions of a prompt: the overall rating, or the mean of the aspect ratings."""
    rejected: Literal["random_lower", "lowest", "every_pair"] = "random_lower"
    """Which scored completion becomes y_l: a random one that scores below the best (as in Zephyr), the lowest one, or,
    with every_pair, the lower one of every two completions. DPO then trains on a prompt with all of its pairs at once
    (docs/engine.md)."""
    margin: float = Field(0.0, ge=0)
    """The two scores of a pair must differ by more than this; 0 accepts any difference."""
    cut_answers: Literal["lose", "keep"] = "lose"
    """Completions that were cut at the maximum of tokens may be rejected and are never chosen, or are taken as any
    other. Neither way is it learnt to end where they end."""
    disagreement: float | None = Field(None, gt=0, le=1)
    """Drop completions whose overall rating and mean aspect rating, each as a share of its scale, differ by more than
    this. None: only count them, from a difference of 0.5."""
    decontaminate: tuple[str, ...] = ()
    """Files of benchmark prompts (JSON lines, JSON, CSV or text). A pair that contains one of them is dropped
    (docs/cleaning.md)."""
    decontaminate_words: int = Field(13, ge=3)
    """How many words in a row a message must share with a longer benchmark prompt for that."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Stop with an error if a larger share of the rows, or of the held-out rows, is dropped."""

    @field_validator("held_out")
    @classmethod
    def _other_pairs(cls, value: Any) -> Any:
        if value == "judgments":
            raise ValueError("the run's own judgments are trained on; name files, a folder or a dataset id")
        return value


class BestAnswers(Section):
    """Which answers rejection sampling learns: of each prompt the best one, by `preferences.score`."""

    min_score: float | None = None
    """A prompt whose best answer scores less is dropped. None: none is."""
    pass_score: float | None = None
    """An answer is right from this score on: `pass@n` is reported, too. None: no score says so."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Stop with an error if a larger share of the prompts is dropped."""


class Tokenized(Section):
    max_length: int = Field(1024, ge=4)
    """Maximum tokens of prompt plus completion. A longer completion is cut at its end and gets no end-of-sequence
    token. With zephyr_legacy, both completions of a pair that is too long are cut to max_length - max_prompt_length
    tokens."""
    max_prompt_length: int = Field(512, ge=1)
    """Maximum tokens of the prompt; a longer one is cut at its start (with zephyr_legacy only if the pair is too
    long)."""

    @model_validator(mode="after")
    def _room_for_a_completion(self) -> Tokenized:
        if self.max_prompt_length >= self.max_length:
            raise ValueError(
                f"max_prompt_length={self.max_prompt_length} leaves no room for a completion in "
                f"max_length={self.max_length}"
            )
        return self
