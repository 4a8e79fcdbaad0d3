"""What an actor of the pool keeps to itself, and where it has its keys from."""

import asyncio
import logging
import socket

import pyarrow as pa
import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.inference import endpoints
from zephyr_ray.recipe import Endpoint, Sampling
from zephyr_ray.schemas import CANDIDATES, PROMPTS


def test_requests_leave_nothing_in_the_log_even_where_they_fail(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:  # bound, but nothing listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        member = Endpoint(name="a", base_url=url, model="m", retries=0)
        pool = endpoints.EndpointPool(Sampling(endpoints=(member,)), run_seed=0)
        messages = [{"role": "user", "content": "between us"}]
        batch = pa.Table.from_pylist([{"prompt_id": "p", "messages": messages, "source": "s"}], schema=PROMPTS)
        with caplog.at_level(logging.DEBUG):
            made = asyncio.run(pool(batch))
    assert made.schema == CANDIDATES
    assert made["error"].to_pylist() == ["a (sample 0): APIConnectionError: Connection error. (ConnectError)"]
    assert "between us" not in caplog.text
    assert not [record.name for record in caplog.records if record.name.startswith(endpoints._CHATTY)]


def test_a_key_comes_from_the_variable_that_the_recipe_names(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Endpoint(name="a", base_url="http://host/v1", model="m", api_key_env="POOL_KEY")
    monkeypatch.delenv("POOL_KEY", raising=False)
    with pytest.raises(UserError, match="a needs its key in POOL_KEY"):
        endpoints._client(member, 1)
    monkeypatch.setenv("POOL_KEY", "sesame")
    assert endpoints._client(member, 1).api_key == "sesame"
    monkeypatch.setenv("OPENAI_API_KEY", "another's")  # the client's own variable is not sent to every server
    assert endpoints._client(member.model_copy(update={"api_key_env": None}), 1).api_key == "none"
