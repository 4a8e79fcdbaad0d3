"""Dialogues through the pool: no reply is paid twice, whatever is changed or resumed, and each row says where it comes
from."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.inference.replying import Handle, ledger, totals
from zephyr_ray.config.feedback import Endpoint
from zephyr_ray.config.generation import Generation
from zephyr_ray.config.model import Chat
from zephyr_ray.data.generated_dialogues import to_rows
from zephyr_ray.generation import plan
from zephyr_ray.generation.pool import DialoguePool
from zephyr_ray.generation.self_instruct import Instruction
from zephyr_ray.inference.clients import Busy, Refused, Unusable
from zephyr_ray.inference.server_reply import Reply
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.pipeline.tokenizer import TokenizerSource

SEEDS = [
    {"prompt_id": f"{n:032x}", "messages": [{"role": "user", "content": f"seed {n}"}], "source": f"s:{n}"}
    for n in range(3)
]


class Server:
    """Answers each request in words that the request decides, unless it was told to fail."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.bodies: list[Mapping[str, Any]] = []
        self.fails: Exception | None = None
        self.after = 0

    async def send(self, body: Mapping[str, Any]) -> Reply:
        if self.fails and len(self.bodies) >= self.after:
            raise self.fails
        self.bodies.append(body)
        name = content_id(body)
        self.sent[name] += 1
        return Reply(f"said {name[:6]}", "stop", 10, 50)


def section(*methods: dict[str, Any], teachers: int = 1, **fields: Any) -> Generation:
    pool = tuple(
        Endpoint(type="endpoint", name=f"teacher-{number}", base_url="http://h/v1", model="m", retries=0)
        for number in range(teachers)
    )
    seeds = None if {method["type"] for method in methods} == {"magpie"} else "FILE"
    return Generation.model_validate({"pool": pool, "methods": methods, "seeds": seeds, **fields})


def planned(given: Generation, instructions: tuple[Instruction, ...] = (), seed: int = 0) -> pa.Table:
    rows = [
        row
        for method in given.methods
        for row in plan.planned(given, seed, method, range(method.dialogues), SEEDS, instructions)
    ]
    return pa.Table.from_pylist(rows, schema=plan.PLANNED)


def made(
    folder: Path, given: Generation, server: Server, rows: pa.Table, tokenizers: Any = None
) -> list[dict[str, Any]]:
    async def run() -> pa.Table:
        pool = DialoguePool(given, 0, {}, tokenizers or {}, Handle(ledger(str(folder))))
        for member in pool.members.values():
            member._server = server
        return await pool(rows)

    return to_rows(asyncio.run(run())).to_pylist()


USER = {"type": "simulated_user", "dialogues": 5, "turns": 3}


def test_a_row_says_its_method_teacher_and_seed_and_seeds_take_turns() -> None:
    given = section(USER, {"type": "self_instruct", "dialogues": 3}, {"type": "self_prompting", "dialogues": 1})
    found = (Instruction("Sing a song", "1.1.1"), Instruction("Tell a tale", "2.3.1"))
    rows = planned(given, found).to_pylist()
    assert [row["source"] for row in rows] == [
        "simulated_user:teacher-0:s:0",
        "simulated_user:teacher-0:s:1",
        "simulated_user:teacher-0:s:2",
        "simulated_user:teacher-0:s:0/2",
        "simulated_user:teacher-0:s:1/2",
        "self_instruct:teacher-0:1.1.1",
        "self_instruct:teacher-0:2.3.1",
        "self_instruct::3",
        "self_prompting:teacher-0:s:0",
    ]
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    assert rows[5]["messages"] == [{"role": "user", "content": "Sing a song"}]
    assert rows[7]["messages"] is None


def test_teachers_are_drawn_by_seed() -> None:
    given = section({"type": "simulated_user", "dialogues": 60}, teachers=3)
    drawn = Counter(row["teacher"] for row in planned(given).to_pylist())
    assert len(drawn) == 3
    assert min(drawn.values()) > 10
    assert planned(given, seed=1)["teacher"] != planned(given)["teacher"]


def test_a_second_run_asks_for_nothing_and_makes_the_same(tmp_path: Path) -> None:
    given, server = section(USER), Server()
    rows = made(tmp_path, given, server, planned(given))
    assert [len(row["messages"]) for row in rows] == [6] * 5
    assert all(row["dialogue_id"] == content_id(row["messages"]) for row in rows)
    assert len({row["dialogue_id"] for row in rows}) == 5
    sent = dict(server.sent)
    assert sum(sent.values()) == len(sent) == 5 * 5
    assert len({body["seed"] for body in server.bodies}) == 25
    assert made(tmp_path, given, server, planned(given)) == rows
    more = section({**USER, "dialogues": 6, "turns": 4})
    longer = made(tmp_path, more, server, planned(more))
    assert [row["messages"][:6] for row in longer[:5]] == [row["messages"] for row in rows]
    assert set(server.sent.values()) == {1}
    assert sum(server.sent.values()) == 6 * 7
    assert totals(ledger(str(tmp_path)))["requests"] == 42


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Busy("no answer"), "request_failed"),
        (Unusable("a wrong key"), "server_given_up"),
    ],
)
def test_a_chain_that_broke_goes_on_where_it_stopped(tmp_path: Path, error: Exception, reason: str) -> None:
    given, server = section(USER), Server()
    server.fails, server.after = error, 8
    rows = made(tmp_path, given, server, planned(given))
    assert {row["reason"] for row in rows} == {reason}
    assert all(row["detail"].startswith("teacher-0: ") for row in rows)
    assert sum(server.sent.values()) == 8
    server.fails = None
    rows = made(tmp_path, given, server, planned(given))
    assert [len(row["messages"]) for row in rows] == [6] * 5
    assert set(server.sent.values()) == {1}
    assert sum(server.sent.values()) == 25


def test_a_refused_request_drops_its_row(tmp_path: Path) -> None:
    given, server = section(USER), Server()
    server.fails = Refused("not this")
    rows = made(tmp_path, given, server, planned(given))
    assert {(row["reason"], row["detail"]) for row in rows} == {("request_refused", "teacher-0: not this")}


def test_a_planned_dialogue_without_an_instruction_is_dropped(tmp_path: Path) -> None:
    given = section({"type": "self_instruct", "dialogues": 1})
    (row,) = made(tmp_path, given, Server(), planned(given))
    assert (row["source"], row["reason"]) == ("self_instruct::1", "no_instruction")


def test_magpie_sends_the_ids_of_the_template_up_to_the_users_text(tmp_path: Path, byte_tokenizer: str) -> None:
    tokenizers = {"teacher-0": TokenizerSource(ModelSource(byte_tokenizer), Chat())}
    magpie = {"type": "magpie", "dialogues": 1, "turns": 2, "tokenizers": {"teacher-0": byte_tokenizer}}
    given, server = section(magpie, temperature=0.5, user_temperature=1.5, extra={"top_k": 9}), Server()
    (row,) = made(tmp_path, given, server, planned(given), tokenizers)
    assert row["source"] == "magpie:teacher-0:1"
    asked, answered, again, _ = server.bodies
    assert bytes(token - 3 for token in asked["prompt"]) == b"<|user|>\n"
    assert asked["stop"] == ["</s>"]  # where engines stop anyway: it ends a sequence
    assert (asked["temperature"], answered["temperature"]) == (1.5, 0.5)
    assert asked["extra_body"] == answered["extra_body"] == {"top_k": 9}
    assert answered["messages"] == row["messages"][:1]
    question, answer = (message["content"].encode() for message in row["messages"][:2])
    expected = [b"<|user|>\n" + question, b"\n<|assistant|>\n" + answer, b"\n<|user|>\n"]
    assert bytes(3 if token == 2 else token - 3 for token in again["prompt"]) == b"\x03".join(expected)
