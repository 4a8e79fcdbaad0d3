"""What is asked of the engine, and how its rows come together again."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from zephyr_ray.chat_template import encode
from zephyr_ray.config.feedback import OfflineModel, Sampling
from zephyr_ray.config.model import Chat
from zephyr_ray.inference import offline
from zephyr_ray.inference.seeds import request_seed
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import CANDIDATES, PROMPTS

# A template that says no, as many published ones do.
STRICT = "{% for m in messages %}{% if m['role'] != 'user' %}{{ raise_exception('no') }}{% endif %}{{ m['content'] }}"
STRICT += "{{ eos_token }}{% endfor %}"


def sampling(*names: str, **fields: Any) -> Sampling:
    return Sampling.model_validate(
        {"pool": [{"type": "offline", "name": name, "model": "m"} for name in names], **fields}
    )


def prompts(*contents: str, role: str = "user") -> pa.Table:
    rows = [{"prompt_id": text, "messages": [{"role": role, "content": text}], "source": "file:1"} for text in contents]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def ask(table: pa.Table, section: Sampling, member: str, source: TokenizerSource) -> list[dict[str, Any]]:
    return offline._requests(table, member=member, source=source, sampling=section, seed=7).to_pylist()


def test_requests_carry_the_ids_of_training_and_the_seeds_of_the_pool(byte_tokenizer: str) -> None:
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat())
    table = prompts("hi", "say </s> twice")  # a control string in a message stays text
    made = ask(table, sampling("a", "b", samples=2), "b", source)
    assert [(row["prompt_id"], row["sample"]) for row in made] == [
        ("hi", 0),
        ("hi", 1),
        ("say </s> twice", 0),
        ("say </s> twice", 1),
    ]
    for row in made:
        messages = [{"role": "user", "content": row["prompt_id"]}]
        assert row["tokenized_prompt"] == encode(source.load(), messages, add_generation_prompt=True)
        assert row["seed"] == request_seed(7, row["prompt_id"], "b", row["sample"])
        assert row["reason"] is None
        assert row["messages"] is None  # they travel once, with the first request to the first member
    assert [row["messages"] is None for row in ask(table, sampling("a", "b", samples=2), "a", source)] == [
        False,
        True,
        False,
        True,
    ]


def test_messages_that_the_template_refuses_are_the_row_s_error(byte_tokenizer: str, tmp_path: Any) -> None:
    (tmp_path / "strict.jinja").write_text(STRICT)
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat(template=str(tmp_path / "strict.jinja")))
    (row,) = ask(prompts("hi", role="system"), sampling("a"), "a", source)
    assert row["tokenized_prompt"] == []
    assert "the chat template refuses" in row["reason"]


def test_the_engine_is_asked_for_the_stop_string() -> None:
    section = sampling("a", stop=["END"], max_tokens=9, temperature=0.5, extra={"top_k": 3})
    assert offline._sampling_params(section, {"seed": 12})["sampling_params"] == {
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 9,
        "seed": 12,
        "top_k": 3,
        "stop": ["END"],
        "include_stop_str_in_output": True,
    }


def done(member: str, sample: int, content: str | None, reason: str | None = None) -> dict[str, Any]:
    first = (member, sample) == ("a", 0)
    messages = [{"role": "user", "content": "hi"}] if first else None
    finish = None if content is None else "stop"
    return {
        "prompt_id": "hi",
        "messages": messages,
        "member": member,
        "sample": sample,
        "content": content,
        "finish_reason": finish,
        "tokens": 1,
        "reason": reason,
    }


def test_requests_come_together_in_order_with_their_errors() -> None:
    rows = [done("b", 0, "three"), done("a", 1, None, "too long"), done("a", 0, "one"), done("b", 1, "four")]
    table = pa.Table.from_pylist(rows, schema=offline._FINISHED_REQUEST)
    joined = offline._join_requests(table, sampling=sampling("a", "b", samples=2), seed=0)
    assert joined.schema == CANDIDATES
    (row,) = joined.to_pylist()
    assert row["messages"] == [{"role": "user", "content": "hi"}]
    assert [each["content"] for each in row["completions"]] == ["one", "three", "four"]
    assert row["completions"][0]["seed"] == request_seed(0, "hi", "a", 0)
    assert row["error"] == "a (sample 1): too long"


@pytest.mark.parametrize("extra", [[], [done("a", 0, "one"), done("a", 0, "one")]])
def test_a_prompt_that_lost_requests_or_is_there_twice_is_an_error(extra: list[dict[str, Any]]) -> None:
    rows = [done("a", 0, "one"), *extra]
    table = pa.Table.from_pylist(rows, schema=offline._FINISHED_REQUEST)
    with pytest.raises(ValueError, match=f"prompt hi: {len(rows)} completions of 2 requests"):
        offline._join_requests(table, sampling=sampling("a", samples=2), seed=0)


@pytest.mark.parametrize(
    ("extra", "ends"), [({}, {2}), ({"stop_token_ids": [9]}, {2, 9}), ({"ignore_eos": True}, set())]
)
def test_tokens_that_end_an_answer(byte_tokenizer: str, extra: dict[str, Any], ends: set[int]) -> None:
    assert offline._end_tokens(TokenizerSource(ModelSource(byte_tokenizer), Chat()), sampling("a", extra=extra)) == ends


@pytest.mark.parametrize(("gpus", "chunked"), [(0, False), (1, None)])
def test_a_cpu_engine_does_not_cut_prompts(gpus: float, chunked: bool | None) -> None:
    model = OfflineModel(type="offline", name="a", model="m", gpus_per_worker=gpus)
    assert offline._engine_defaults(model).get("enable_chunked_prefill") is chunked
    assert offline._engine_defaults(model)["disable_log_stats"]
