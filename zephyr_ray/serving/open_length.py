"""Answers whose request names no length: as long as the model's context leaves, and at most the gateway's bound.

How long the prompt is, only the replica knows. So the gateway leaves the length open and sends its bound along, and the
replica sets the length when the prompt's tokens are known. vLLM alone has no such request: it refuses a `max_tokens`
that is over what the context leaves, and a completion without one gets 16 tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient
    from vllm.sampling_params import SamplingParams

BOUND = "open_length_bound"
"""The bound's name among vLLM's extra arguments of a request."""


def leave_open(body: dict[str, Any], bound: int) -> None:
    """Marks a request as one whose answer may have up to `bound` tokens.

    vLLM is asked for the shortest answer that the request can have: it refuses the request only where the context does
    not leave that much.
    """
    body["max_tokens"] = max(1, body.get("min_tokens", 0))
    body["vllm_xargs"] = {BOUND: bound}


def set_open_lengths(client: EngineClient) -> None:
    """Lets an engine give answers of open length what the context leaves."""
    config, generate = client.model_config, client.generate
    # A length in the model's own generation config is a default: it holds for requests that name none.
    usual = config.get_diff_sampling_param().get("max_tokens")

    def generate_with_length(prompt: Any, sampling_params: SamplingParams, *args: Any, **options: Any) -> Any:
        bound = (sampling_params.extra_args or {}).get(BOUND)
        if bound is not None:
            sampling_params.max_tokens = _length(config, prompt, bound, usual, sampling_params.min_tokens)
        return generate(prompt, sampling_params, *args, **options)

    client.generate = generate_with_length  # type: ignore[method-assign]


def _length(config: Any, prompt: Any, bound: int, usual: int | None, least: int) -> int:
    """Tokens of an answer to this prompt."""
    from vllm.renderers.inputs.preprocess import extract_prompt_len

    left = config.max_model_len - extract_prompt_len(config, prompt)
    wanted = bound if usual is None else min(bound, usual)
    return min(left, max(wanted, least))
