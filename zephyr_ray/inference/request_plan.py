"""Reads a prompt row and what became of its requests -> a row of `candidates`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zephyr_ray.config.feedback import Sampling
from zephyr_ray.inference.seeds import draw_members, draw_principle, request_seed

_REASON_LENGTH = 300


@dataclass(frozen=True)
class Request:
    """One answer to ask for."""

    member: str
    sample: int
    """Number of the answer among this member's to the prompt."""
    seed: int
    principle: str | None = None
    """What the member is told as system message."""


@dataclass(frozen=True)
class Answer:
    """What a member wrote."""

    content: str
    finish_reason: str | None
    tokens: int | None


Kind = Literal["failed", "refused", "given_up", "over_budget"]


_WORST_FIRST: tuple[Kind, ...] = ("over_budget", "given_up", "failed", "refused")


@dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    reason: str
    kind: Kind = "failed"
    """failed: retries were used up; refused: by the server, for good; given_up: the whole member is out of use;
    over_budget: it was not sent."""


def plan(sampling: Sampling, run_seed: int, prompt_id: str) -> list[Request]:
    """The requests for one prompt: members in the order of the pool, each with its samples in order."""
    names = [member.name for member in sampling.pool]
    drawn = names if sampling.draw is None else draw_members(run_seed, prompt_id, names, sampling.draw)
    return [
        Request(
            name,
            sample,
            request_seed(run_seed, prompt_id, name, sample),
            draw_principle(run_seed, prompt_id, name, sample) if sampling.principles else None,
        )
        for name in drawn
        for sample in range(sampling.samples)
    ]


def messages_of(request: Request, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The prompt as the member gets it: a principle stands before the prompt's own system message."""
    turns = [dict(message) for message in messages]
    if request.principle is None:
        return turns
    own = [turns.pop(0)["content"]] if turns and turns[0]["role"] == "system" else []
    return [{"role": "system", "content": "\n\n".join([request.principle, *own])}, *turns]


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
            "principle": request.principle,
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


def worst(outcomes: Sequence[Answer | Failure]) -> Kind | None:
    """The failure of a row that decides what becomes of it; None where nothing failed."""
    kinds = {outcome.kind for outcome in outcomes if isinstance(outcome, Failure)}
    return next((kind for kind in _WORST_FIRST if kind in kinds), None)


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
