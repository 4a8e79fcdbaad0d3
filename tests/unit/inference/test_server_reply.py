"""What a whole reply says, whatever JSON it is: a completion, a refusal, or nothing that costs anything."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.inference.replying import SANE, Handle, Server, ledger, reply, usage
from zephyr_ray.config.feedback import Price
from zephyr_ray.inference import retrying_client
from zephyr_ray.inference.clients import Busy, read_body
from zephyr_ray.inference.pool import ANSWERED
from zephyr_ray.inference.request_plan import Completion, CompletionRequest, Failure, candidates_row, worst
from zephyr_ray.inference.response_cache import LedgerLink
from zephyr_ray.inference.server_reply import NoCompletion, Reply, count, parse_json, read_reply

NULL = {"role": "assistant", "content": None}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (SANE, Reply("hi", "stop", 10, 50)),
        (reply({"content": ""}), Reply("", "stop", 10, 50)),
        (reply(finish_reason=None, usage=None), Reply("hi", None, None, None)),
        (reply(finish_reason=7, usage="many"), Reply("hi", None, None, None)),
        (reply(finish_reason={"type": "stop"}, usage=[]), Reply("hi", None, None, None)),
        (reply(finish_reason="st\ud83dop"), Reply("hi", "st?op", 10, 50)),
        (usage("10"), Reply("hi", "stop", None, 50)),
        (usage(2**40, -10_000_000), Reply("hi", "stop", None, None)),
        (usage(2**31 - 1, 2**31), Reply("hi", "stop", 2**31 - 1, None)),
        (usage(True, 5.5), Reply("hi", "stop", None, None)),
        (usage(0, 0), Reply("hi", "stop", 0, 0)),
        (reply({"content": "a\ud83d"}), Reply("a?", "stop", 10, 50)),
        (reply({"content": "\ud83d\ude00"}), Reply("\U0001f600", "stop", 10, 50)),
        (reply({"content": "hi", "refusal": "no"}), Reply("hi", "stop", 10, 50)),
        (reply({"content": "so f"}, "content_filter"), Reply("so f", "content_filter", 10, 50)),
        (reply(NULL, "length"), Reply("", "length", 10, 50)),
        (reply({}, "stop"), Reply("", "stop", 10, 50)),
        (reply(NULL | {"tool_calls": []}, "tool_calls"), Reply("", "tool_calls", 10, 50)),
    ],
)
def test_what_an_answer_says(given: Any, read: Reply) -> None:
    assert read_reply(parse_json(json.dumps(given).encode())) == read


@pytest.mark.parametrize(
    ("choice", "content", "refusal"),
    [
        ({"text": "hi", "finish_reason": "stop"}, "hi", None),
        ({"text": None, "finish_reason": "stop"}, "", None),
        ({"text": ["hi"], "finish_reason": "stop"}, "", "the completion is not text"),
        ({"message": {"content": "hi"}}, "", "the reply's choice has no message, but its usage counts tokens"),
    ],
)
def test_what_a_completion_of_a_text_says(choice: Any, content: str, refusal: str | None) -> None:
    read = read_reply(reply(choices=[choice]), is_text=True)
    assert (read.content, read.refusal, read.tokens, read.prompt_tokens) == (content, refusal, 10, 50)
    assert read_reply(reply(choices=[{"text": "hi"}])).refusal  # in a chat a choice has a message


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        (reply(NULL, "content_filter"), "a content filter took the completion away"),
        (reply({"content": ""}, "content_filter"), "a content filter took the completion away"),
        (reply(NULL | {"refusal": "I can\ud83dnot"}), "the model refused: I can?not"),
        (reply({"content": 7}), "the completion is not text"),
        (reply({"content": [{"type": "text"}]}, "length"), "the completion is not text"),
        (reply(choices=[]), "the reply has no choices, but its usage counts tokens"),
        (reply(choices=[None]), "the reply's choice has no message, but its usage counts tokens"),
        (reply(choices=None, usage={"completion_tokens": "10"}), "the reply has no choices, but its usage counts"),
    ],
)
def test_a_whole_reply_without_a_completion_is_refused_and_counted(given: Any, refusal: str) -> None:
    read = read_reply(given)
    assert read.content == ""
    assert (read.refusal or "").startswith(refusal)
    assert read.prompt_tokens == count(given["usage"].get("prompt_tokens"))


@pytest.mark.parametrize(
    "choices", [None, [], {}, {"a": 1}, "x", 5, True, [None], ["x"], [[]], [{}], [{"message": None}], [{"message": 3}]]
)
@pytest.mark.parametrize("used", [None, {}, "x", {"prompt_tokens": 0, "completion_tokens": None}])
def test_what_is_no_completion_and_counts_nothing_is_asked_for_again(choices: Any, used: Any) -> None:
    with pytest.raises(NoCompletion, match=r"the reply has no choices|the reply's choice has no message"):
        read_reply({"choices": choices, "usage": used})


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"choices": [{"mess', b"[1]", b"null", b"[" * 100_000])
def test_what_is_no_reply_is_asked_for_again(body: bytes) -> None:
    with pytest.raises(Busy):
        read_body(body)


def test_bytes_and_numbers_that_python_refuses_are_read_all_the_same() -> None:
    body = json.dumps(SANE).replace("hi", "h@").replace("10", "1" * 5000).encode().replace(b"@", b"\xff")
    assert read_body(b"\xef\xbb\xbf" + body) == Reply("h\ufffd", "stop", None, 50)


@given(st.binary())
def test_any_bytes_are_read_or_may_pass(body: bytes) -> None:
    with contextlib.suppress(Busy):
        assert isinstance(read_body(body), Reply)


TEXTS = st.text() | st.sampled_from(["", "\ud83d", "a\udfffb", "10", "length", "content_filter"])
NUMBERS = st.integers() | st.sampled_from([2**31, 2**31 - 1, -(2**31), 2**63, 2**200]) | st.floats()
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
PLACES: list[tuple[str | int, ...]] = [
    (),
    ("choices",),
    ("choices", 0),
    ("choices", 0, "finish_reason"),
    ("choices", 0, "message"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "message", "refusal"),
    ("usage",),
    ("usage", "completion_tokens"),
    ("usage", "prompt_tokens"),
]


def changed(changes: list[tuple[tuple[str | int, ...], Any]]) -> Any:
    """The sane reply with other values in some places, as far as these are still there."""
    whole: dict[str, Any] = {"reply": copy.deepcopy(SANE)}
    for place, value in changes:
        *path, last = ("reply", *place)
        inner: Any = whole
        try:
            for step in path:
                inner = inner[step]
            inner[last] = value
        except (KeyError, IndexError, TypeError):
            continue
    return whole["reply"]


EDGES: list[Any] = [None, "", "a\ud83d", "10", "length", "content_filter", True, 5.0, -(10**7), 2**31, [None], {}]
REPLIES = st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(EDGES) | ANY_JSON), min_size=1, max_size=3).map(
    changed
)
REQUEST = CompletionRequest("m", 0, 1)


class _Ledger:
    """A ledger on a disk, and a client of a priced member that writes to it."""

    def __init__(self, folder: str):
        self.own = ledger(folder)
        self.link = LedgerLink(Handle(self.own))
        self.asked = 0

    async def ask(self, body: Any) -> tuple[Completion | Failure, Completion | Failure, int]:
        """The outcomes of a new request, now and in a later run, and how often it was sent."""
        server = Server(body)
        client = retrying_client.RetryingClient(
            server, in_flight=4, retries=0, ledger=self.link, price=Price(input=10, output=30)
        )
        self.asked += 1
        request = {"messages": [{"role": "user", "content": "q"}], "seed": self.asked, "max_tokens": 512}
        row = str(self.asked)
        first = await client.ask(row, request, {})
        known = (await self.link.replies([row])).get(row, {})
        return first, await client.ask(row, request, known), server.sent


def billed(body: dict[str, Any]) -> tuple[int, int]:
    """The tokens of prompt and completion to count for a reply: its own as far as they can be true, or the reserved."""
    used = body["usage"] if isinstance(body.get("usage"), dict) else {}
    counts = [used.get("prompt_tokens"), used.get("completion_tokens")]
    own = [each if type(each) is int and each in range(2**31) else None for each in counts]
    return 17 if own[0] is None else own[0], 512 if own[1] is None else own[1]


def test_no_reply_ends_the_job_or_lowers_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zephyr_ray.inference.response_cache._GATHER_S", 0.0)
    with asyncio.Runner() as runner:
        book = _Ledger(str(tmp_path))

        @settings(max_examples=150)
        @given(REPLIES | ANY_JSON)
        def check(body: Any) -> None:
            before = runner.run(book.own.totals())
            first, again, sent = runner.run(book.ask(body))
            after = runner.run(book.own.totals())
            is_whole = isinstance(first, Completion) or first.kind == "refused"
            assert first == again
            assert sent == (1 if is_whole else 2)
            assert after["requests"] == before["requests"] + is_whole
            prompt_tokens, tokens = billed(body) if is_whole else (0, 0)
            assert after["prompt_tokens"] == before["prompt_tokens"] + prompt_tokens
            assert after["tokens"] == before["tokens"] + tokens
            usd = (prompt_tokens * 10 + tokens * 30) / 1e6
            assert after["usd"] == pytest.approx(before["usd"] + usd, rel=1e-9)
            row = candidates_row({"prompt_id": "p", "messages": []}, [REQUEST], [first])
            assert pa.Table.from_pylist([row | {"failure": worst([first])}], schema=ANSWERED).num_rows == 1

        check()
        assert runner.run(ledger(str(tmp_path)).totals()) == pytest.approx(runner.run(book.own.totals()))
