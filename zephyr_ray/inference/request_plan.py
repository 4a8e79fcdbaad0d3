"""The requests for one prompt, and the row of `candidates` that their outcomes make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zephyr_ray.config.feedback import Sampling
from zephyr_ray.inference import server_reply
from zephyr_ray.inference.seeds import draw_members, draw_principle, request_seed

_REASON_LENGTH = 300


@dataclass(frozen=True)
class CompletionRequest:
    """A request for one completion."""

    member: str
    sample: int
    """Number of the completion among this member's for the prompt."""
    seed: int
    principle: str | None = None
    """The system message, or None."""


@dataclass(frozen=True)
class Completion:
    """A member's completion of a prompt."""

    content: str
    finish_reason: str | None
    tokens: int | None


Kind = Literal["failed", "refused", "given_up", "over_budget"]


_WORST_FIRST: tuple[Kind, ...] = ("over_budget", "given_up", "failed", "refused")


@dataclass(frozen=True)
class Failure:
    """Why there is no completion."""

    reason: str
    kind: Kind = "failed"
    """failed: all retries failed; refused: the server, the model or a filter refused it for good; given_up: the member
    is no longer used; over_budget: it was not sent."""


def answer_of(reply: server_reply.Reply, most_tokens: int) -> dict[str, Any]:
    """What the ledger keeps of a reply.

    Args:
        reply: A whole reply.
        most_tokens: Upper bound on its tokens, which is counted if the server does not report them.

    Returns:
        The completion's content, finish_reason and tokens; `tokens_reported` (false) if `tokens` is the bound; and
        `refusal` if there is no completion.
    """
    answer: dict[str, Any] = {"content": reply.content, "finish_reason": reply.finish_reason, "tokens": reply.tokens}
    if reply.tokens is None:
        answer |= {"tokens": most_tokens, "tokens_reported": False}
    return answer if reply.refusal is None else answer | {"refusal": reply.refusal}


def outcome_of(answer: Mapping[str, Any]) -> Completion | Failure:
    """The outcome of a request whose answer the ledger keeps, checked again: earlier versions kept any values."""
    refusal = server_reply.text(answer.get("refusal"))
    if refusal is not None:
        return Failure(refusal, "refused")
    content, finish_reason = server_reply.text(answer.get("content")), server_reply.text(answer.get("finish_reason"))
    tokens = server_reply.count(answer.get("tokens")) if answer.get("tokens_reported", True) else None
    return Completion(content or "", finish_reason, tokens)


def plan(sampling: Sampling, run_seed: int, prompt_id: str) -> list[CompletionRequest]:
    """The requests for one prompt: members in the order of the pool, each with its samples in order."""
    names = [member.name for member in sampling.pool]
    drawn = names if sampling.draw is None else draw_members(run_seed, prompt_id, names, sampling.draw)
    return [
        CompletionRequest(
            name,
            sample,
            request_seed(run_seed, prompt_id, name, sample),
            draw_principle(run_seed, prompt_id, name, sample) if sampling.principles else None,
        )
        for name in drawn
        for sample in range(sampling.samples)
    ]


def messages_of(request: CompletionRequest, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The prompt's messages as sent: a principle comes before the prompt's own system message."""
    turns = [dict(message) for message in messages]
    if request.principle is None:
        return turns
    own = [turns.pop(0)["content"]] if turns and turns[0]["role"] == "system" else []
    return [{"role": "system", "content": "\n\n".join([request.principle, *own])}, *turns]


def candidates_row(
    prompt: Mapping[str, Any], requests: Sequence[CompletionRequest], outcomes: Sequence[Completion | Failure]
) -> dict[str, Any]:
    """A row of `candidates`: the completions in the order of their requests, and one line on failed requests."""
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
        if isinstance(outcome, Completion)
    ]
    return {
        "prompt_id": prompt["prompt_id"],
        "messages": prompt["messages"],
        "completions": completions,
        "error": _describe_failures(requests, outcomes),
    }


def worst(outcomes: Sequence[Completion | Failure]) -> Kind | None:
    """The kind of the worst failure of a row, which decides what happens to it; None if nothing failed."""
    kinds = {outcome.kind for outcome in outcomes if isinstance(outcome, Failure)}
    return next((kind for kind in _WORST_FIRST if kind in kinds), None)


def _describe_failures(requests: Sequence[CompletionRequest], outcomes: Sequence[Completion | Failure]) -> str | None:
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
