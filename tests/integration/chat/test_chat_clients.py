"""Clients as people run them: OpenAI's over several turns and without a length, and lm-eval.

lm-eval would bring twenty-six packages along, so its requests were recorded from the program itself:
`requests/lm_eval.json` says by which version, commands and tasks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from transformers import AutoTokenizer

from tests.integration.service import Service
from zephyr_ray import chat_template

pytestmark = pytest.mark.timeout(600)

RECORDED = json.loads(Path(__file__).with_name("requests").joinpath("lm_eval.json").read_text("utf-8"))["requests"]
CONTEXT, BOUND = 512, 400  # of the service
USER = {"role": "user", "content": "Reverse the word: tree"}
TO_THE_END = {"ignore_eos": True}


@pytest.fixture(scope="module")
def client(chat_service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{chat_service.url}/v1", api_key=chat_service.key, max_retries=0)


def prompt_of(client: openai.OpenAI, messages: list[Any]) -> list[int]:
    """The ids that the engine is fed for messages."""
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=1, extra_body={"return_token_ids": True}
    )
    return answer.model_dump()["prompt_token_ids"]


def test_a_conversation_goes_on_with_the_message_that_came(client: openai.OpenAI, base_model: Path) -> None:
    messages: list[Any] = [{"role": "developer", "content": "Be brief."}, USER]
    for _ in range(2):
        answer = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_completion_tokens=9)
        messages += [answer.choices[0].message, USER]
    said = [message if isinstance(message, dict) else message.model_dump() for message in messages]
    plain = [{"role": message["role"], "content": message["content"]} for message in said]
    plain[0]["role"] = "system"
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    assert prompt_of(client, messages) == chat_template.encode(tokenizer, plain, add_generation_prompt=True)


def test_a_conversation_by_streams_goes_on(client: openai.OpenAI) -> None:
    messages: list[Any] = [USER]
    for _ in range(2):
        with client.chat.completions.stream(
            model="tiny", messages=messages, temperature=0, max_completion_tokens=9
        ) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            message = stream.current_completion_snapshot.choices[0].message
        assert "".join(deltas) == message.content
        messages += [message, USER]
    assert prompt_of(client, messages)


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_length_an_answer_gets_what_the_context_leaves(client: openai.OpenAI, stream: bool) -> None:
    word = " pear"
    one, two = (len(prompt_of(client, [{"role": "user", "content": word * n}])) for n in (100, 101))
    words = 100 + (CONTEXT - 10 - one) // (two - one)
    messages = [{"role": "user", "content": word * words}]
    prompt = len(prompt_of(client, messages))
    assert CONTEXT - 20 < prompt <= CONTEXT - 10
    options: dict[str, Any] = {"model": "tiny", "messages": messages, "extra_body": TO_THE_END}
    if stream:
        *_, before, last = client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
        reason, usage = before.choices[0].finish_reason, last.usage
    else:
        answer = client.chat.completions.create(**options)
        reason, usage = answer.choices[0].finish_reason, answer.usage
    assert (reason, usage.completion_tokens) == ("length", CONTEXT - prompt)


@pytest.mark.parametrize(
    ("prompts", "lengths"),
    [([CONTEXT - 10], [10]), ([CONTEXT - 1], [1]), ([3], [BOUND]), ([3, CONTEXT - 7], [BOUND, 7])],
)
def test_each_prompt_of_a_completion_gets_its_own_length(
    client: openai.OpenAI, prompts: list[int], lengths: list[int]
) -> None:
    extra = TO_THE_END | {"return_token_ids": True}
    answer = client.completions.create(model="tiny", prompt=[[5] * size for size in prompts], extra_body=extra)
    assert [len(choice.model_dump()["token_ids"]) for choice in answer.choices] == lengths
    assert {choice.finish_reason for choice in answer.choices} == {"length"}


def test_several_answers_of_open_length_end_at_the_context(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=[5] * (CONTEXT - 4), n=2, extra_body=TO_THE_END)
    assert (len(answer.choices), answer.usage.completion_tokens) == (2, 8)


def test_a_length_that_the_context_does_not_leave_is_refused(client: openai.OpenAI) -> None:
    for options in ({"max_tokens": 11}, {"extra_body": {"min_tokens": 11}}):
        with pytest.raises(openai.BadRequestError, match="11 output tokens"):
            client.completions.create(model="tiny", prompt=[5] * (CONTEXT - 10), **options)
    with pytest.raises(openai.BadRequestError, match="context length is 512"):
        client.completions.create(model="tiny", prompt=[5] * CONTEXT)


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_what_lm_eval_asks_is_answered_as_it_reads_it(chat_service: Service, number: int) -> None:
    path, body = RECORDED[number]["path"], RECORDED[number]["body"]
    headers = {"authorization": f"Bearer {chat_service.key}"}
    answer = httpx.post(f"{chat_service.url}{path}", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    choices = answer.json()["choices"]
    if "messages" in body:
        assert [type(choice["message"]["content"]) for choice in choices] == [str]
        return
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    assert [choice["index"] for choice in choices] == list(range(len(prompts)))
    assert all(isinstance(choice["text"], str) for choice in choices)
    if body.get("echo"):
        for prompt, choice in zip(prompts, choices, strict=True):
            found, best = choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]
            if isinstance(prompt, list):
                assert len(found) == len(prompt) + 1  # and the one token after it
            assert found[0] is None
            for token, top in zip(found[1:], best[1:], strict=True):
                assert token <= max(top.values()) <= 0
