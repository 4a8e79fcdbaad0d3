"""The layout of a packed row: prompts with their branches (completions), and which token may see which.

A prompt lies once before all of its branches: `prompt | branch 1 | ... | branch N`, and such segments follow each other
in a row without padding. A token sees its own prompt and its own branch up to itself. Positions of every branch start
where its prompt ends, so that a branch cannot tell that others lie before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

_OF_TARGETS = ("predictors", "branch", "offset")


class Segment(NamedTuple):
    """A prompt and its branches: where it starts in the row, and how many tokens each part has."""

    start: int
    prompt: int
    branches: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + self.prompt + sum(self.branches)


class Span(NamedTuple):
    """A prompt or a branch: its tokens are start .. end - 1, those of its prompt prompt_start .. prompt_end - 1."""

    start: int
    end: int
    prompt_start: int
    prompt_end: int


@dataclass(frozen=True)
class PackedRow:
    """One row of tokens.

    Attributes:
        tokens: int64 [1, T].
        positions: int64 [1, T].
        segments: In order; together they are the whole row.
        predictors: int64 [C], for each completion token the index in the row of the token that predicts it: the one
            before it, and for the first token of any branch the last one of the prompt.
        targets: int64 [1, C], the completion tokens, branch after branch.
        branch: int64 [C], the number in the row of each completion token's branch.
        offset: int64 [C], its place in the branch, from 0.

    C is less than all completion tokens where only some are scored (`scoring`), and more where prompts are scored too
    (`scoring_prompts`).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    segments: tuple[Segment, ...]
    predictors: torch.Tensor
    targets: torch.Tensor
    branch: torch.Tensor
    offset: torch.Tensor

    def to(self, device: torch.device | str) -> PackedRow:
        """The row on a device, which a GPU copies while this goes on."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PackedRow:
        """The row in memory that a GPU reads by itself; torch's data loader calls this."""
        return self._with(torch.Tensor.pin_memory)

    def scoring(self, chosen: torch.Tensor | slice) -> PackedRow:
        """The same row with log-probs asked for at some of its targets alone (bool [C], or a slice of them)."""
        targets = self.targets[:, chosen]
        return replace(self, targets=targets, **{name: getattr(self, name)[chosen] for name in _OF_TARGETS})

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> PackedRow:
        names = ("tokens", "positions", "targets", *_OF_TARGETS)
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **changed)

    @property
    def branch_lengths(self) -> list[int]:
        return [length for segment in self.segments for length in segment.branches]


def pack(
    prompts: Sequence[Sequence[int]],
    branches: Sequence[Sequence[Sequence[int]]],
    multiple: int = 1,
    align: int = 1,
) -> PackedRow:
    """Lays prompts with their branches out in one row.

    Args:
        prompts: Token ids of each prompt, at least one token: something has to predict a branch's first token.
        branches: For each prompt the token ids of its branches, any number of them.
        multiple: The row's length is filled up to a multiple of this by one more prompt, without branches.
        align: Each prompt starts at a multiple of this, after such a prompt where it has to.

    Raises:
        ValueError: A prompt is empty.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("an empty prompt: nothing predicts the first token of its completions")
    parts: list[tuple[list[int], list[list[int]]]] = []
    length = 0
    for prompt, group in zip(prompts, branches, strict=True):
        parts += _filler(-length % align)
        parts.append((list(prompt), [list(branch) for branch in group]))
        length += -length % align + len(prompt) + sum(map(len, group))
    parts += _filler(-length % multiple)
    segments = _segments([(len(prompt), tuple(map(len, group))) for prompt, group in parts])
    completions = [branch for _, group in parts for branch in group]
    lengths = [len(branch) for branch in completions]
    return PackedRow(
        tokens=_int64([token for prompt, group in parts for span in (prompt, *group) for token in span])[None],
        positions=torch.cat([_positions(segment) for segment in segments])[None],
        segments=segments,
        predictors=torch.cat([torch.empty(0, dtype=torch.int64), *(p for s in segments for p in _predictors(s))]),
        targets=_int64([token for branch in completions for token in branch])[None],
        branch=torch.arange(len(lengths)).repeat_interleave(_int64(lengths)),
        offset=torch.cat([torch.empty(0, dtype=torch.int64), *(torch.arange(length) for length in lengths)]),
    )


def _filler(tokens: int) -> list[tuple[list[int], list[list[int]]]]:
    """A prompt without branches, of so many tokens; none for 0."""
    return [([0] * tokens, [])] if tokens else []


def pack_pairs(pairs: Sequence[Mapping[str, Any]], multiple: int = 1, align: int = 1) -> PackedRow:
    """Pairs (`prompt_ids`, `chosen_ids`, `rejected_ids`) in one row: a prompt, its chosen and its rejected completion,
    and the next prompt."""
    branches = [(pair["chosen_ids"], pair["rejected_ids"]) for pair in pairs]
    return pack([pair["prompt_ids"] for pair in pairs], branches, multiple, align)


def pack_groups(groups: Sequence[Mapping[str, Any]], multiple: int = 1, align: int = 1) -> PackedRow:
    """Groups (`prompt_ids`, `completions`) in one row: a prompt, all of its completions, and the next prompt."""
    return pack([group["prompt_ids"] for group in groups], [group["completions"] for group in groups], multiple, align)


def scoring_prompts(row: PackedRow) -> PackedRow:
    """The same row with log-probs asked for at its prompts' tokens too, but the first of each, which nothing predicts.

    They follow those of the completions, and their branch is -1.
    """
    starts = [(segment.start, segment.prompt - 1) for segment in row.segments if segment.branches]
    predictors = torch.cat([torch.arange(start, start + tokens) for start, tokens in starts])
    of_prompts: dict[str, torch.Tensor] = {
        "predictors": predictors,
        "branch": torch.full_like(predictors, -1),
        "offset": torch.cat([torch.arange(tokens) for _, tokens in starts]),
    }
    found: dict[str, Any] = {name: torch.cat([getattr(row, name), values]) for name, values in of_prompts.items()}
    return replace(row, targets=torch.cat([row.targets, row.tokens[:, predictors + 1]], dim=1), **found)


def by_completion(row: PackedRow, values: torch.Tensor) -> torch.Tensor:
    """A value [1, C] for each completion token of a row of B pairs -> [2, B, L], the chosen completions first, with 0
    behind a completion's end."""
    lengths = row.branch_lengths
    grid = values.new_zeros(2, len(lengths) // 2, max(lengths))
    return grid.index_put((row.branch % 2, row.branch // 2, row.offset), values[0])


def by_branch(row: PackedRow, values: torch.Tensor) -> torch.Tensor:
    """A value [1, C] for each completion token of a row of N completions -> [N, L], with 0 behind the end of each."""
    lengths = row.branch_lengths
    grid = values.new_zeros(len(lengths), max(lengths))
    return grid.index_put((row.branch, row.offset), values[0])


def completion_mask(row: PackedRow) -> torch.Tensor:
    """Where `by_completion` has a token: bool [2, B, L]."""
    return by_completion(row, torch.ones_like(row.targets, dtype=torch.bool))


def spans(segments: Sequence[Segment]) -> list[Span]:
    """The prompts and branches of a row in order. A prompt is a span that has no prompt before it."""
    found = []
    for segment in segments:
        prompt_end = segment.start + segment.prompt
        found.append(Span(segment.start, prompt_end, segment.start, segment.start))
        for start, length in zip(_branch_starts(segment), segment.branches, strict=True):
            found.append(Span(start, start + length, segment.start, prompt_end))
    return found


def visible(segments: Sequence[Segment], window: int | None = None) -> torch.Tensor:
    """Which token (row) sees which (column), as one dense bool matrix [T, T]: the rule that the backends must equal.

    Args:
        segments: Of a row.
        window: Tokens that a token sees, itself the last of them; None for all. It counts positions in the sequence,
            as transformers' `sliding_window_overlay` does: a branch's first token sees the last `window - 1` of its
            prompt, however many branches lie between.
    """
    seen = torch.zeros(segments[-1].end, segments[-1].end, dtype=torch.bool)
    for span in spans(segments):
        own = slice(span.start, span.end)
        seen[own, own] = torch.ones(span.end - span.start, span.end - span.start).tril().bool()
        seen[own, span.prompt_start : span.prompt_end] = True
    if window is not None:
        places = torch.cat([_positions(segment) for segment in segments])
        seen &= places > places[:, None] - window
    return seen


def _segments(lengths: list[tuple[int, tuple[int, ...]]]) -> tuple[Segment, ...]:
    segments, start = [], 0
    for prompt, branches in lengths:
        segments.append(Segment(start, prompt, branches))
        start = segments[-1].end
    return tuple(segments)


def _branch_starts(segment: Segment) -> list[int]:
    before = [sum(segment.branches[:number]) for number in range(len(segment.branches))]
    return [segment.start + segment.prompt + tokens for tokens in before]


def _positions(segment: Segment) -> torch.Tensor:
    branches = [torch.arange(segment.prompt, segment.prompt + length) for length in segment.branches]
    return torch.cat([torch.arange(segment.prompt), *branches])


def _predictors(segment: Segment) -> list[torch.Tensor]:
    last_of_prompt = segment.start + segment.prompt - 1
    found = []
    for start, length in zip(_branch_starts(segment), segment.branches, strict=True):
        found.append(torch.arange(start - 1, start - 1 + length))
        found[-1][:1] = last_of_prompt
    return found


def _int64(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)
