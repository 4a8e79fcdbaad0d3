"""Two models, each with an engine of its own, behind one endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.integration.jobs import command_lines

pytestmark = pytest.mark.timeout(300)

USER = [{"role": "user", "content": "Sort these words: pear, apple, fig"}]


def test_each_model_answers_with_its_own_weights(served_by_command: tuple[str, Path]) -> None:
    url, root = served_by_command
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert set(listed) == {root.name, "second"}
    assert all(model["fingerprint"] and model["max_model_len"] == 512 for model in listed.values())
    said: list[Any] = [
        client.chat.completions.create(model=name, messages=USER, max_tokens=12, temperature=0) for name in listed
    ]
    assert [answer.model for answer in said] == list(listed)
    assert [answer.system_fingerprint for answer in said] == [model["fingerprint"] for model in listed.values()]
    assert len({answer.system_fingerprint for answer in said}) == 2
    assert len({answer.choices[0].message.content for answer in said}) == 2


def test_a_model_tells_what_made_it_by_the_fingerprint_of_its_answers(served_by_command: tuple[str, Path]) -> None:
    """The run's model has a lineage; the other one is a folder that no run made."""
    url, root = served_by_command
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    said = client.chat.completions.create(model=root.name, messages=USER, max_tokens=1)
    asked = f"{url}/v1/models/{root.name}/lineage"
    lineage = httpx.get(asked, params={"fingerprint": str(said.system_fingerprint)}).json()
    assert (lineage["of"], lineage["system_fingerprint"]) == (["dpo"], said.system_fingerprint)
    assert lineage["fingerprint"] == said.system_fingerprint
    refused = httpx.get(f"{url}/v1/models/second/lineage")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "no_lineage")


def test_an_engine_on_a_cpu_is_one_process(served_by_command: tuple[str, Path]) -> None:
    lines = [line for _, line in command_lines(psutil.Process().children(recursive=True))]
    assert [line.split()[0] for line in lines if line.startswith("VLLM::")] == ["VLLM::EngineCore"] * 2
