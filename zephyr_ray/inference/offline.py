"""Sample completions offline: Ray Data loads the models into vLLM, without a server.

The engine gets token ids from `chat_template.encode`, as in training. Each request is a row, with the same seed that an
endpoint of that name would get.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray.data

from zephyr_ray import chat_template
from zephyr_ray.config.feedback import OfflineModel, Sampling
from zephyr_ray.config.model import Chat
from zephyr_ray.inference.request_plan import Completion, CompletionRequest, Failure, candidates_row, plan
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import CANDIDATES, IDS, MESSAGES, Dropped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REQUEST = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("member", pa.string()),
        ("sample", pa.int32()),
        ("seed", pa.int64()),
    ]
)
"""A request; `messages` is set on a prompt's first request only."""
_ENCODED_REQUEST = pa.schema([*_REQUEST, ("tokenized_prompt", IDS), ("reason", pa.string())])
_FINISHED_REQUEST = pa.schema(
    [
        *_REQUEST,
        ("content", pa.string()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
        ("reason", pa.string()),
    ]
)


def sample_offline(sampling: Sampling, chat: Chat, seed: int, prompts: ray.data.Dataset) -> ray.data.Dataset:
    """Rows of `schemas.CANDIDATES`. All members' engines run at the same time; rows arrive once all are done."""
    parts = []
    for member in sampling.offline:
        path = os.path.abspath(member.model) if os.path.isdir(member.model) else member.model
        source = TokenizerSource(ModelSource(path, member.engine.get("revision")), chat)
        ask = functools.partial(_requests, member=member.name, source=source, sampling=sampling, seed=seed)
        parts.append(_generate(prompts.map_batches(ask, batch_format="pyarrow"), member, sampling, source))
    done = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
    join = functools.partial(_join_requests, sampling=sampling, seed=seed)
    return done.groupby("prompt_id").map_groups(join, batch_format="pyarrow")


def _generate(
    requests: ray.data.Dataset, member: OfflineModel, sampling: Sampling, source: TokenizerSource
) -> ray.data.Dataset:
    """Runs one member's requests; the rows returned have the schema `_FINISHED_REQUEST`."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    bundle = {"CPU": member.cpus_per_worker, "GPU": member.gpus_per_worker}
    config = vLLMEngineProcessorConfig(
        model_source=source.model.path,
        engine_kwargs=_engine_defaults(member) | member.engine,
        log_engine_metrics=False,
        batch_size=member.batch_size,
        concurrency=(member.workers, member.workers),
        placement_group_config={"bundle_per_worker": bundle},
        runtime_env={"env_vars": member.env},
        should_continue_on_error=True,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    processor = build_processor(config, preprocess=functools.partial(_sampling_params, sampling))
    read = functools.partial(_read_outputs, sampling=sampling, source=source)
    return processor(requests).map_batches(read, batch_format="pyarrow")


def _engine_defaults(member: OfflineModel) -> dict[str, Any]:
    """Options without which one request can end the job. A recipe can override them.

    With statistics on, a batch in which every request failed has no `metrics` struct, and Ray Data 2.60 cannot
    concatenate its block with others. With chunked prefill, vLLM 0.29 on a CPU crashes on a seeded request whose prompt
    is computed in parts (it rewinds the generator, which a CPU generator does not support).
    """
    defaults: dict[str, Any] = {"disable_log_stats": True}
    return defaults if member.gpus_per_worker else defaults | {"enable_chunked_prefill": False}


def _requests(prompts: pa.Table, *, member: str, source: TokenizerSource, sampling: Sampling, seed: int) -> pa.Table:
    """The requests to one member for a block of prompts, with token ids or the reason why there are none."""
    plans = [(row, plan(sampling, seed, row["prompt_id"])) for row in prompts.to_pylist()]
    asked = [(row, requests) for row, requests in plans if any(request.member == member for request in requests)]
    encoded = source.encode_each(_encode_prompts, [row["messages"] for row, _ in asked])
    made = [
        _request_row(row, request, ids, is_first=request is requests[0])
        for (row, requests), ids in zip(asked, encoded, strict=True)
        for request in requests
        if request.member == member
    ]
    return pa.Table.from_pylist(made, schema=_ENCODED_REQUEST)


def _encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Any, tokenization: str) -> list[list[int]]:
    return [chat_template.encode(tokenizer, messages, add_generation_prompt=True) for messages in prompts]


def _request_row(
    row: dict[str, Any], request: CompletionRequest, ids: list[int] | Dropped, *, is_first: bool
) -> dict[str, Any]:
    refused = isinstance(ids, Dropped)
    return {
        "prompt_id": row["prompt_id"],
        "messages": row["messages"] if is_first else None,
        "member": request.member,
        "sample": request.sample,
        "seed": request.seed,
        "tokenized_prompt": [] if refused else ids,  # the engine refuses an empty prompt, for that row only
        "reason": str(ids) if refused else None,
    }


def _sampling_params(sampling: Sampling, row: dict[str, Any]) -> dict[str, Any]:
    """The column that the engine reads. It includes the stop string, to tell it from the length limit later."""
    params = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": row["seed"],
        **sampling.extra,
    }
    if sampling.stop:
        params |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
    return {"sampling_params": params}


def _read_outputs(batch: pa.Table, *, sampling: Sampling, source: TokenizerSource) -> pa.Table:
    """Turns the processor's output into rows of the schema `_FINISHED_REQUEST`."""
    ends = _end_tokens(source, sampling)
    wanted = [*_REQUEST.names, "reason", "generated_text", "generated_tokens", "__inference_error__"]
    rows = []
    for row in batch.select(wanted).to_pylist():
        error = row.pop("__inference_error__")
        text, tokens = row.pop("generated_text"), row.pop("generated_tokens")
        if error:
            rows.append({**row, "reason": row["reason"] or error})
            continue
        content, finish_reason = read_end(text, tokens, ends, sampling.stop)
        rows.append({**row, "content": content, "finish_reason": finish_reason, "tokens": len(tokens)})
    return pa.Table.from_pylist(rows, schema=_FINISHED_REQUEST)


def read_end(text: str, tokens: Sequence[int], ends: frozenset[int], stop: Sequence[str]) -> tuple[str, str]:
    """The completion without its stop string, and its finish reason, which Ray Data's processor does not pass on."""
    for string in stop:
        if text.endswith(string):
            return text[: -len(string)], "stop"
    return text, "stop" if tokens and tokens[-1] in ends else "length"


def _end_tokens(source: TokenizerSource, sampling: Sampling) -> frozenset[int]:
    """The tokens at which the engine stops: from the request, the tokenizer and the generation config."""
    from transformers import GenerationConfig

    asked = frozenset(sampling.extra.get("stop_token_ids") or ())
    if sampling.extra.get("ignore_eos"):
        return asked
    try:
        ids = GenerationConfig.from_pretrained(source.model.path, revision=source.model.revision or "main").eos_token_id
    except OSError:  # the model has no generation config
        ids = None
    more = [ids] if isinstance(ids, int) else ids or []
    return asked | frozenset(more) | {int(source.load().eos_token_id)}


def _join_requests(done: pa.Table, *, sampling: Sampling, seed: int) -> pa.Table:
    """Joins all requests of one prompt to its candidates row."""
    rows = done.to_pylist()
    prompt_id = rows[0]["prompt_id"]
    requests = plan(sampling, seed, prompt_id)
    outcomes = {(row["member"], row["sample"]): _outcome(row) for row in rows}
    if not len(rows) == len(outcomes) == len(requests):
        raise ValueError(
            f"prompt {prompt_id}: {len(rows)} completions of {len(requests)} requests; is the prompt there twice?"
        )
    messages = next(row["messages"] for row in rows if row["messages"] is not None)
    ordered = [outcomes[request.member, request.sample] for request in requests]
    row = candidates_row({"prompt_id": prompt_id, "messages": messages}, requests, ordered)
    return pa.Table.from_pylist([row], schema=CANDIDATES)


def _outcome(row: dict[str, Any]) -> Completion | Failure:
    if row["reason"] is not None:
        return Failure(row["reason"])
    return Completion(row["content"], row["finish_reason"], row["tokens"])
