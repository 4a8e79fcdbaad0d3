"""The pool against a real vLLM server, with and without harm done between, and the same without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.servers import Proxy, free_port
from zephyr_ray.config.feedback import Sampling
from zephyr_ray.config.model import Chat
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import CANDIDATES, PROMPTS

pytestmark = pytest.mark.usefixtures("ray_cluster")
SAMPLES = 3


def prompts(count: int, blocks: int = 1) -> Any:
    import pyarrow as pa
    import ray.data

    rows = []
    for number in range(count):
        messages = [{"role": "user", "content": f"Sort these numbers: {number}, 7, 3"}]
        rows.append({"prompt_id": content_id("prompt", messages), "messages": messages, "source": f"made:{number}"})
    return ray.data.from_arrow([pa.Table.from_pylist(rows[start::blocks], schema=PROMPTS) for start in range(blocks)])


def sample(asked: Any, seed: int = 0, **sampling: Any) -> list[dict[str, Any]]:
    """Rows of candidates, by prompt id."""
    from zephyr_ray.inference.sampling import sample_candidates

    section = Sampling.model_validate({"samples": SAMPLES, "max_tokens": 12, **sampling})
    made = sample_candidates(section, Chat(), seed, asked)
    tables = [table for table in made.iter_batches(batch_format="pyarrow", batch_size=None) if table.num_rows]
    assert all(table.schema.equals(CANDIDATES) for table in tables)
    return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["prompt_id"])


def member(name: str, url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "endpoint", "name": name, "base_url": url, "model": name, "max_in_flight": 8, **fields}


def test_rows_in_are_rows_out_and_the_same_seeds_give_the_same_answers(vllm_url: str) -> None:
    pool = [member("a", vllm_url), member("b", vllm_url)]
    rows = sample(prompts(12), pool=pool)
    assert [row["prompt_id"] for row in rows] == sorted(row["prompt_id"] for row in prompts(12).take_all())
    for row in rows:
        assert row["error"] is None
        assert [each["model"] for each in row["completions"]] == ["a"] * SAMPLES + ["b"] * SAMPLES
        assert len({each["seed"] for each in row["completions"]}) == 2 * SAMPLES
        assert len({each["content"] for each in row["completions"]}) == 2 * SAMPLES
        assert all(0 < each["tokens"] <= 12 and each["finish_reason"] for each in row["completions"])
    again = sample(prompts(12, blocks=5), pool=pool[::-1], workers=2)
    assert [by_seed(row) for row in again] == [by_seed(row) for row in rows]
    other = sample(prompts(2), seed=1, pool=pool)
    assert not {seed for row in other for seed in by_seed(row)} & {seed for row in rows for seed in by_seed(row)}


def by_seed(row: dict[str, Any]) -> dict[int, tuple[str, str]]:
    return {each["seed"]: (each["model"], each["content"]) for each in row["completions"]}


def test_harm_on_the_way_is_mended_and_the_bound_holds(proxy: Proxy) -> None:
    kinds = {4: "429", 5: "500", 6: "reset", 7: "stall"}

    def harm(body: dict, before: int) -> str | None:
        return kinds.get(body["seed"] % 16) if before == 0 else None

    proxy.fault = harm
    pool = [member("a", proxy.url, max_in_flight=9, timeout_s=2), member("b", proxy.url, max_in_flight=7)]
    rows = sample(prompts(12, blocks=12), pool=pool, workers=2)
    assert [row["error"] for row in rows] == [None] * 12
    assert all(len(row["completions"]) == 2 * SAMPLES for row in rows)
    # Two workers share 9 as 4 + 4, and 7 as 3 + 3.
    assert 4 <= proxy.most_open["a"] <= 8
    assert 3 <= proxy.most_open["b"] <= 6
    waits = [times[1] - times[0] for key, times in proxy.times.items() if int(key.split()[1]) % 16 == 4]
    assert waits
    assert min(waits) >= 1, "Retry-After said one second"


def test_a_dead_member_is_named_in_its_rows_and_the_others_answers_are_kept(vllm_url: str) -> None:
    dead = member("dead", f"http://127.0.0.1:{free_port()}/v1", retries=1)
    rows = sample(prompts(6), pool=[member("a", vllm_url), dead])
    for row in rows:
        assert [each["model"] for each in row["completions"]] == ["a"] * SAMPLES
        assert row["error"].startswith(
            "dead (samples 0, 1, 2): ClientConnectorError: Cannot connect to host 127.0.0.1:"
        )


def test_odd_replies_are_errors_of_their_samples(proxy: Proxy) -> None:
    none = {"id": "x", "object": "chat.completion", "created": 0, "model": "a", "choices": []}
    silent = none | {"choices": [{"index": 0, "finish_reason": "stop"}]}
    odd = [json.dumps(none), json.dumps(silent), "{not json"]
    seen: dict[str, list[int]] = {}

    def fault(body: dict, before: int) -> str | None:
        seeds = seen.setdefault(json.dumps(body["messages"]), [])
        seeds.append(body["seed"])
        return odd[len(seeds) - 1] if len(seeds) <= len(odd) else None

    proxy.fault = fault
    (row,) = sample(prompts(1), pool=[member("a", proxy.url, max_in_flight=1, retries=0)], samples=4)
    assert [each["model"] for each in row["completions"]] == ["a"]
    assert "no choices" in row["error"]
    assert "the reply's choice has no message" in row["error"]
    assert "JSONDecodeError" in row["error"]


def test_members_are_drawn_and_a_key_comes_from_the_workers_environment(proxy: Proxy) -> None:
    pool = [member("a", proxy.url), member("b", proxy.url)]
    rows = sample(prompts(20), pool=pool, draw=1, samples=1, stop=["e"], extra={"top_k": 5})
    drawn = [each["model"] for row in rows for each in row["completions"]]
    assert len(drawn) == 20
    assert set(drawn) == {"a", "b"}
    assert all(body["stop"] == ["e"] and body["top_k"] == 5 for body in proxy.bodies)
    with pytest.raises(Exception, match="a needs its key in NO_SUCH_KEY"):
        sample(prompts(1), pool=[member("a", proxy.url, api_key_env="NO_SUCH_KEY")])
