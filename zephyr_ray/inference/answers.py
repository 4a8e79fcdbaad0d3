"""Reads a prompt row and what became of its requests -> a row of `candidates`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.inference.seeds import draw_members, request_seed
from zephyr_ray.recipe import Sampling

_REASON_LENGTH = 300


@dataclass(frozen=True)
class Request:
    """One answer to ask for."""

    member: str
    sample: int
    """Number of the answer among this member's to the prompt."""
    seed: int


@dataclass(frozen=True)
class Answer:
    """What a member wrote."""

    content: str
    finish_reason: str | None
    tokens: int | None


@dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    reason: str


def plan(sampling: Sampling, run_seed: int, prompt_id: str) -> list[Request]:
    """The requests for one prompt: members in the order of the pool, each with its samples in order."""
    names = [member.name for member in sampling.members]
    drawn = names if sampling.draw is None else draw_members(run_seed, prompt_id, names, sampling.draw)
    return [
        Request(name, sample, request_seed(run_seed, prompt_id, name, sample))
        for name in drawn
        for sample in range(sampling.samples)
    ]


def candidates_row(
    prompt: Mapping[str, Any], requests: Sequence[Request], outcomes: Sequence[Answer | Failure]
) -> dict[str, Any]:
    """A row of `candidates`: the answers in the order of their requests, and one line on those that failed."""
    completions = [
        {
            "model": request.member,
            "content": outcome.content,
            "finish_reason": outcome.finish_reason,
            "tokens": outcome.tokens,
            "seed": request.seed,
            "principle": None,
        }
        for request, outcome in zip(requests, outcomes, strict=True)
        if isinstance(outcome, Answer)
    ]
    return {
        "prompt_id": prompt["prompt_id"],
        "messages": prompt["messages"],
        "completions": completions,
        "error": _error(requests, outcomes),
    }


def _error(requests: Sequence[Request], outcomes: Sequence[Answer | Failure]) -> str | None:
    """`member (samples 0, 2): reason; ...`, one part for each member and reason."""
    failed: dict[tuple[str, str], list[int]] = {}
    for request, outcome in zip(requests, outcomes, strict=True):
        if isinstance(outcome, Failure):
            reason = " ".join(outcome.reason.split())[:_REASON_LENGTH]
            failed.setdefault((request.member, reason), []).append(request.sample)
    parts = [
        f"{member} (sample{'s' * (len(samples) > 1)} {', '.join(map(str, samples))}): {reason}"
        for (member, reason), samples in failed.items()
    ]
    return "; ".join(parts) or None
