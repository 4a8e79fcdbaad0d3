"""Dialogues that teachers make: through a server that does harm, and through a real engine whose worker is killed.

README: every planned dialogue is accounted for, and no reply is paid for twice. What is made is measured and reported.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.fault_server import FaultServer
from tests.integration.jobs import command_lines
from tests.making import context_of, stage_of
from tests.unit.data.pages import Page
from zephyr_ray.config import loader
from zephyr_ray.errors import UserError
from zephyr_ray.generation.prompts import more_instructions
from zephyr_ray.inference import response_log
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.fingerprints import content_id

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Teacher(FaultServer):
    """Writes lists of instructions too."""

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = super()._reply(body)
        asked = "" if "prompt" in body else body["messages"][-1]["content"]
        if "numbered" in asked:
            words = [content_id(asked, place)[:24] for place in range(8)]
            listed = "\n".join(f"{place}. Explain {word[:8]} to {word[8:16]}" for place, word in enumerate(words, 1))
            reply["choices"][0]["message"]["content"] = listed
        return reply


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    running = Teacher()
    with running:
        yield running


def make(root: Path, generation: Mapping[str, Any], fingerprint: str = "at first") -> tuple[dict[str, Any], Run]:
    """Makes what is not there yet of the stages of generation; returns the manifest of the dialogues."""
    recipe = loader.load([], [f"run.root={root}", f"generation={json.dumps(generation)}"])
    run = Run(str(root))
    for name in ("seeds", "generated_dialogues") if "seeds" in generation else ("generated_dialogues",):
        artifact = run.artifact(name)
        if not artifact.is_finished(fingerprint):
            artifact.begin(fingerprint)
            made = stage_of(recipe, name).make(context_of(recipe, artifact))
            artifact.finish({"fingerprint": fingerprint, **made})
    return run.artifact("generated_dialogues").manifest() or {}, run


def measured(run: Run, root: Path, generation: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """The numbers of the report on dialogues that are made, which a model embeds."""
    given = [f"run.root={root}", f"generation={json.dumps(generation)}", f"embeddings.model={model}"]
    recipe = loader.load([], given)
    for name in ("generated_embeddings", "diversity"):
        artifact = run.artifact(name)
        artifact.begin(name)
        artifact.finish({"fingerprint": name, **stage_of(recipe, name).make(context_of(recipe, artifact))})
    page = Page(Path(artifact.path, "report.html").read_text())
    page.check_loads_nothing()
    assert "45 dialogues: 5 by magpie" in page.text
    return json.loads(Path(artifact.path, "diversity.json").read_text())


def replies(run: Run) -> list[dict[str, Any]]:
    """The lines of the ledger, from the files that are gathered when a try ends."""
    folder = f"{run.artifact('generated_dialogues').path}/replies"
    found = response_log.listing(run.filesystem, folder)
    assert found.loose == []
    lines = [line for commit in found.commits for part in commit.parts for line in _decompressed(f"{folder}/{part}")]
    return [json.loads(line) for line in lines]


def test_stopped_by_money_and_faults_it_goes_on_and_pays_for_no_reply_twice(
    tmp_path: Path, teacher: Teacher, base_model: Path
) -> None:
    teacher.faults = {"429": 0.1, "500": 0.1, "malformed": 0.05}
    seeds, tasks = tmp_path / "seeds.jsonl", [f"Count to {number}" for number in range(10, 30)]
    seeds.write_text("".join(json.dumps({"instruction": task}) + "\n" for task in tasks))
    member = {"type": "endpoint", "name": "a", "base_url": teacher.url, "model": "a", "retries": 8}
    generation = {
        "pool": [{**member, "price": {"input": 1e6, "output": 1e6}}],
        "seeds": str(seeds),
        "methods": [
            {"type": "self_instruct", "dialogues": 20},
            {"type": "simulated_user", "dialogues": 15, "turns": 2},
            {"type": "self_prompting", "dialogues": 5},
            {"type": "magpie", "dialogues": 5, "tokenizers": {"a": str(base_model)}},
        ],
        "max_tokens": 64,
    }
    # A reply costs 60 US dollars. The rounds take 2 + 1 requests, the dialogues 20 + 3 x 15 + 3 x 5 + 2 x 5.
    one = len(more_instructions(tasks[:8], 8)) + 16 + 64
    for budget, fewest, most in ((one + 30, 1, 1), (one + 1_000, 3, (one + 1_000) // 60)):
        with pytest.raises(UserError, match=rf"^generated_dialogues: the budget is spent .* of {budget} US dollars"):
            make(tmp_path / "run", generation | {"budget_usd": budget})
        assert fewest <= sum(teacher.billed.values()) <= most
    manifest, run = make(tmp_path / "run", generation)
    assert set(teacher.billed.values()) == {1}
    assert sum(teacher.billed.values()) == 3 + 20 + 3 * 15 + 3 * 5 + 2 * 5
    assert manifest["counts"] == {"in": 45, "out": 45, "dropped": {}}
    rows = run.artifact("generated_dialogues").table().to_pylist()
    methods = Counter(row["source"].split(":")[0] for row in rows)
    assert methods == {"self_instruct": 20, "simulated_user": 15, "self_prompting": 5, "magpie": 5}
    assert len({row["source"] for row in rows}) == 45
    assert all(row["dialogue_id"] == content_id(row["messages"]) for row in rows)
    assert manifest["noted"]["rounds"] == 2
    assert manifest["asked"]["requests"] == sum(teacher.billed.values())
    numbers = measured(run, tmp_path / "run", generation, base_model)
    assert numbers["methods"] == dict(sorted(methods.items()))
    assert [*numbers["distinct"]] == ["users", "assistant", "seeds"]
    assert numbers["openings"]["1"][0]["seeds_share"] in (0, 1)  # all seeds say "Count to"
    embedded = numbers["embedded"]
    assert {method: curve["made"][-1] for method, curve in embedded["generations"].items()} == numbers["methods"]
    assert sum(topic["dialogues"] for topic in embedded["topics"]) == 45
    assert len(embedded["pairs"]) == 10


def test_an_endpoint_without_a_completions_api_is_refused_in_a_line(
    tmp_path: Path, teacher: Teacher, base_model: Path
) -> None:
    member = {"type": "endpoint", "name": "a", "base_url": teacher.url.replace("/v1", "/chat-only"), "model": "m"}
    magpie = {"type": "magpie", "dialogues": 40, "tokenizers": {"a": str(base_model)}}
    with pytest.raises(
        UserError, match=r"no completions API \(POST http://.*/chat-only/completions\) with model m"
    ) as stop:
        make(tmp_path / "run", {"pool": [member], "methods": [magpie]})
    assert "\n" not in str(stop.value)
    assert not teacher.billed


def test_magpie_on_an_engine_of_the_stage_with_a_killed_worker(tmp_path: Path, base_model: Path) -> None:
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(base_model).eos_token_id
    generation = {
        "pool": [
            {
                "type": "deployment",
                "name": "random",
                "model": str(base_model),
                "accelerator": "cpu",
                "dtype": "float32",
                "max_model_len": 256,
                "max_in_flight": 4,
            }
        ],
        "methods": [{"type": "magpie", "dialogues": 40, "turns": 2}],
        "max_tokens": 48,
        "extra": {"logit_bias": {str(end): 5}, "min_tokens": 2},  # a random model would go on without end
        "max_dropped": 0.9,
    }
    written = tmp_path / "run" / "generated_dialogues" / "replies"
    killed: list[int] = []

    def kill_one() -> None:
        while sum(path.read_bytes().count(b"\n") for path in written.glob("*.jsonl")) < 40:
            time.sleep(0.05)
        for process, line in command_lines(psutil.Process().children(recursive=True)):
            if {"MapWorker", "DialoguePool"} <= set(re.findall(r"\w+", line)):
                process.kill()
                killed.append(process.pid)
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    manifest, run = make(tmp_path / "run", generation)
    killer.join()
    assert killed
    counts = manifest["counts"]
    assert counts["in"] == 40 == counts["out"] + sum(counts["dropped"].values())
    assert counts["out"] > 20
    keys = Counter(reply["key"] for reply in replies(run))
    assert manifest["asked"]["requests"] == sum(keys.values())
    assert sum(keys.values()) - len(keys) <= 4  # what was under way at that moment
    rows = run.artifact("generated_dialogues").table().to_pylist()
    assert all(re.fullmatch(r"magpie:random:\d+", row["source"]) for row in rows)
    assert {len(row["messages"]) for row in rows} <= {2, 4}


def _decompressed(path: str) -> list[bytes]:
    import pyarrow as pa

    with pa.OSFile(path) as file, pa.CompressedInputStream(file, "zstd") as stream:
        return stream.read().splitlines()
