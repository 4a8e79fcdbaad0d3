"""The stages that ask models, against a server that does harm: every row accounted for, no reply paid for twice."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.integration.fault_server import STRANGE, FaultServer
from tests.integration.jobs import command_lines
from tests.making import alone
from zephyr_ray.chat_template import template_text
from zephyr_ray.config import loader
from zephyr_ray.config.feedback import RewardModelJudge
from zephyr_ray.config.model import Chat
from zephyr_ray.errors import UserError
from zephyr_ray.inference import response_log
from zephyr_ray.pipeline.artifacts import Artifact, Run

pytestmark = pytest.mark.usefixtures("ray_cluster")

FAULTS = {"429": 0.2, "500": 0.1, "hang": 0.05, "malformed": 0.1, "refuse": 0.05}


class Stages:
    """A run whose stages are made in this process."""

    def __init__(self, root: Path, *overrides: str, fingerprint: str = "fingerprint"):
        self.fingerprint = fingerprint
        base = ["model.path=none", f"run.root={root}", *overrides]
        self.recipe = loader.load([], base)
        self.run = Run(str(root))

    def artifact(self, stage: str) -> Artifact:
        artifact = self.run.artifact(stage)
        if artifact.is_finished(self.fingerprint):
            return artifact
        if artifact.manifest() is not None:  # another recipe's, of which the replies stay
            for entry in Path(artifact.path).iterdir():
                if entry.is_dir() and entry.name != "replies":
                    shutil.rmtree(entry)
                elif entry.is_file():
                    entry.unlink()
            artifact = self.run.artifact(stage)
            artifact.seal({"fingerprint": None}, artifact.states())
        artifact.begin(self.fingerprint)
        return artifact

    def prompts(self, count: int, *more: str) -> Artifact:
        import pyarrow as pa

        from zephyr_ray.data.io import writer
        from zephyr_ray.data.io.rows import mixed_schema
        from zephyr_ray.pipeline.fingerprints import content_id
        from zephyr_ray.schemas import PROMPTS

        rows = []
        for number, text in enumerate([*(f"What is {number} + 1?" for number in range(count)), *more]):
            messages = [{"role": "user", "content": text}]
            rows.append({"prompt_id": content_id(messages), "messages": messages, "source": f"made:{number}"})
        import ray.data

        table = pa.Table.from_pylist(rows, schema=mixed_schema(PROMPTS))
        artifact = self.artifact("prompts")
        report = writer.write(ray.data.from_arrow(table), artifact, PROMPTS)
        artifact.finish({"fingerprint": self.fingerprint, "files": report.files})
        return artifact

    def candidates(self) -> Any:
        from zephyr_ray.data.candidates import make_candidates

        context = alone(self.artifact("candidates"))
        section, chat, seed = self.recipe.sampling, self.recipe.chat, self.recipe.run.seed
        assert section is not None
        report, _ = make_candidates(section, chat, seed, self.run.artifact("prompts"), context)
        self.run.artifact("candidates").finish({"fingerprint": self.fingerprint, "files": report.files})
        return report

    def judgments(self) -> Any:
        from zephyr_ray.data.judgments import make_judgments
        from zephyr_ray.pipeline.model_source import ModelInput

        context = alone(self.artifact("judgments"))
        section, seed = self.recipe.judging, self.recipe.run.seed
        assert section is not None
        judge = section.judge
        source = None
        if isinstance(judge, RewardModelJudge):
            field, path = "judging.judge.model", judge.model
            model = ModelInput("reward_model", field, path, judge.revision, is_reward_model=True)
            source = model.source(self.run)
        made = make_judgments(section, seed, self.run.artifact("candidates"), source, context)
        self.run.artifact("judgments").finish({"fingerprint": self.fingerprint, "files": made[0].files})
        return made

    def rows(self, stage: str, folder: str = "data") -> list[dict[str, Any]]:
        files = sorted(Path(self.run.path, stage, folder).glob("*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def pool(url: str, **fields: Any) -> str:
    member = {
        "type": "endpoint",
        "name": "a",
        "base_url": url,
        "model": "a",
        "max_in_flight": 32,
        "timeout_s": 20.0,
        "retries": 8,
        **fields,
    }
    return json.dumps([member])


def judges(url: str, **fields: Any) -> str:
    """One language model as judge."""
    return json.dumps({"type": "language_models", "models": json.loads(pool(url, **fields))})


def test_requests_of_which_half_fare_badly(tmp_path: Path, server: FaultServer) -> None:
    server.faults = FAULTS
    stages = Stages(
        tmp_path / "run",
        f"sampling.pool={pool(server.url, timeout_s=1.0)}",
        "sampling.samples=2",
        "sampling.max_failed=1",
    )
    stages.prompts(100)
    report = stages.candidates()
    kept, dropped = stages.rows("candidates"), stages.rows("candidates", "dropped")
    asked = {row["prompt_id"] for row in stages.rows("prompts")}
    assert report.rows_in == 100 == report.rows_out + sum(report.dropped.values()) == len(kept) + len(dropped)
    assert Counter(row["prompt_id"] for row in kept) + Counter(row["source"] for row in dropped) == Counter(asked)
    refused = [row for row in kept if row["error"]]
    assert all("not this" in row["error"] for row in refused)
    assert all(len(row["completions"]) == (1 if row["error"] else 2) for row in kept)
    # Nothing is invented: each answer repeats its request's seed.
    assert all(each["content"] == f"answer {each['seed']}" for row in kept for each in row["completions"])
    assert set(server.billed.values()) == {1}
    assert sum(server.billed.values()) == sum(len(row["completions"]) for row in kept) + _lost(dropped)
    assert {row["reason"] for row in dropped} <= {"request_refused", "request_failed"}
    assert all(server.done[kind] for kind in FAULTS)


def test_strange_replies_are_paid_once_and_every_row_is_accounted_for(tmp_path: Path, server: FaultServer) -> None:
    server.faults = dict.fromkeys(STRANGE, 0.1) | {"empty": 0.05}
    member = {"price": {"input": 10, "output": 30}}
    # A count that is text costs `max_tokens`: as many as the server bills.
    limits = ("sampling.max_tokens=10", "judging.judge.max_tokens=10", "judging.judge.parse_retries=1")
    overrides = (f"sampling.pool={pool(server.url, **member)}", f"judging.judge={judges(server.url, **member)}")

    def run(fingerprint: str) -> tuple[Any, Any]:
        stages = Stages(tmp_path / "run", *overrides, *limits, "sampling.samples=2", fingerprint=fingerprint)
        if not stages.run.artifact("prompts").manifest():
            stages.prompts(60)
        sampled = stages.candidates()
        assert sampled.rows_in == 60 == sampled.rows_out + sum(sampled.dropped.values())
        assert sampled.dropped.keys() <= {"request_refused"}
        judged, _, _ = stages.judgments()
        assert (judged.rows_in, judged.rows_out) == (sampled.rows_out, sampled.rows_out)
        return by_id(stages.rows("candidates")), by_id(stages.rows("judgments"))

    rows = run("at first")
    sent = sum(server.done.values())
    assert all(server.done[kind] for kind in server.faults)
    assert set(server.billed.values()) == {1}
    assert _usd(tmp_path / "run") == pytest.approx(sum(server.billed.values()) * (50 * 10 + 10 * 30) / 1e6)
    completions = [each for row in rows[0] for each in row["completions"]]
    assert {each["finish_reason"] for each in completions} == {"stop", "length"}
    assert {each["content"].partition(" ")[0] for each in completions} == {"answer", "answer?", ""}
    assert run("again") == rows
    assert sum(server.done.values()) == sent


def _usd(root: Path) -> float:
    """What the ledgers of the two stages count together."""
    import asyncio

    from zephyr_ray.inference.response_cache import Ledger

    ledgers = [Ledger(Run(str(root)).artifact(stage)) for stage in ("candidates", "judgments")]
    return sum(asyncio.run(ledger.totals())["usd"] for ledger in ledgers)


def _lost(dropped: list[dict[str, Any]]) -> int:
    """Answers of rows that were dropped for another request of theirs: `detail` names the samples without one."""
    without = [re.findall(r"\(samples? ([\d, ]+)\)", row["detail"]) for row in dropped]
    return sum(2 - len(",".join(samples).split(",")) for samples in without)


def test_rows_that_failed_are_what_the_next_run_asks_for(tmp_path: Path, server: FaultServer) -> None:
    overrides = (f"sampling.pool={pool(server.url, retries=0)}", "sampling.samples=2")
    server.faults = {"500": 0.3}
    stages = Stages(tmp_path / "run", *overrides)
    stages.prompts(60)
    with pytest.raises(UserError, match=r"candidates: \d+ of 60 rows failed.*the same command goes on with the other"):
        stages.candidates()
    assert stages.run.artifact("candidates").manifest() is None
    assert 0 < len(stages.rows("candidates")) < 60
    first = dict(server.billed)
    server.faults = {}
    report = stages.candidates()
    assert (report.rows_in, report.rows_out, report.dropped) == (60, 60, {})
    assert len({row["prompt_id"] for row in stages.rows("candidates")}) == 60
    assert set(server.billed.values()) == {1}
    assert first.keys() < server.billed.keys()
    replies = response_log.listing(stages.run.filesystem, str(Path(stages.run.path, "candidates", "replies")))
    assert replies.loose == []
    assert sum(commit.totals["requests"] for commit in replies.commits) == len(server.billed)


def test_a_budget_is_never_passed_and_more_of_it_goes_on(tmp_path: Path, server: FaultServer) -> None:
    # 50 tokens in and 10 out: a reply costs 70 US dollars, and what is held back for one is 18 + 16 + 2 x 32.
    price = {"price": {"input": 1e6, "output": 2e6}, "max_in_flight": 4}
    overrides = (f"sampling.pool={pool(server.url, **price)}", "sampling.max_tokens=32")
    stages = Stages(tmp_path / "run", *overrides, "sampling.budget_usd=2000")
    stages.prompts(60)
    with pytest.raises(
        UserError, match=r"the budget is spent \((\d+)\.00 of 2000 US dollars\); raise sampling.budget_usd"
    ) as stop:
        stages.candidates()
    assert sum(server.billed.values()) == 28  # with 27 paid, 110 are left: enough; with 28, 40
    assert "(1960.00 of" in str(stop.value)
    more = Stages(tmp_path / "run", *overrides, "sampling.budget_usd=6000")
    report = more.candidates()
    assert report.rows_out == 60
    assert set(server.billed.values()) == {1}
    assert sum(server.billed.values()) == 60


def test_a_server_that_is_down_or_refuses_the_key_stops_the_stage_soon(tmp_path: Path, server: FaultServer) -> None:
    stages = Stages(tmp_path / "run", f"sampling.pool={pool('http://127.0.0.1:9/v1', retries=0)}")
    stages.prompts(200)
    with pytest.raises(
        UserError, match=r"candidates: a \(sample 0\): 20 requests in a row had no answer: ClientConnectorError"
    ):
        stages.candidates()
    assert not stages.rows("candidates")


def test_a_worker_that_is_killed_loses_no_row_and_no_reply(tmp_path: Path, server: FaultServer) -> None:
    import threading
    import time

    import psutil

    server.latency_s = 0.05
    stages = Stages(tmp_path / "run", f"sampling.pool={pool(server.url, max_in_flight=8)}", "sampling.workers=2")
    stages.prompts(400)
    killed: list[int] = []

    def kill_one() -> None:
        while sum(server.billed.values()) < 100:
            time.sleep(0.02)
        for process, line in command_lines(psutil.Process().children(recursive=True)):
            if {"MapWorker", "CandidatePool"} <= set(re.findall(r"\w+", line)):
                process.kill()
                killed.append(process.pid)
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = stages.candidates()
    killer.join()
    assert killed
    assert (report.rows_in, report.rows_out) == (400, 400)
    assert len({row["prompt_id"] for row in stages.rows("candidates")}) == 400
    twice = [name for name, count in server.billed.items() if count > 1]
    assert len(twice) <= 8  # what was under way at that moment
    assert len(server.billed) == 400


JUDGE = ("judging.judge.aspects=[helpfulness, overall]", "judging.judge.position_check=0.5")


def test_judges_rate_every_answer_and_no_judgment_is_paid_for_twice(tmp_path: Path, server: FaultServer) -> None:
    server.faults = {"429": 0.1, "malformed": 0.1}
    judge = f"judging.judge={judges(server.url)}"
    stages = Stages(tmp_path / "run", f"sampling.pool={pool(server.url)}", "sampling.samples=3", judge, *JUDGE)
    stages.prompts(40)
    stages.candidates()
    sampled = sum(server.billed.values())
    report, agreement, lines = stages.judgments()
    rows = stages.rows("judgments")
    assert (report.rows_in, report.rows_out) == (40, 40)
    assert set(server.billed.values()) == {1}
    checked = sum(any(reply["is_reversed"] for reply in row["replies"]) for row in rows)
    assert 0 < checked < 40
    assert sum(server.billed.values()) - sampled == 2 * (40 + checked)
    for row in rows:
        assert all(1 <= each["overall_score"] <= 10 for each in row["completions"])
        assert all(1 <= each["annotations"]["helpfulness"]["rating"] <= 5 for each in row["completions"])
        assert all(each["annotations"]["honesty"] is None for each in row["completions"])
        assert all(reply["complaint"] is None and reply["raw"] for reply in row["replies"])
    assert agreement["orders"]["overall"]["pairs"] == 3 * checked
    assert any("two orders" in line for line in lines)


def test_a_changed_recipe_pays_for_what_is_new_alone(tmp_path: Path, server: FaultServer) -> None:
    def paid(fingerprint: str, samples: int, *changed: str, url: str = server.url) -> int:
        """For how many requests, by now."""
        models = (f"sampling.pool={pool(url)}", f"judging.judge={judges(url)}", "judging.judge.position_check=0")
        overrides = (*models, f"sampling.samples={samples}", "judging.judge.aspects=[overall]", *changed)
        stages = Stages(tmp_path / "run", *overrides, fingerprint=fingerprint)
        if not stages.run.artifact("prompts").manifest():
            stages.prompts(10)
        stages.candidates()
        report, _, _ = stages.judgments()
        assert (report.rows_in, report.rows_out) == (10, 10)
        assert all(len(row["completions"]) == samples for row in stages.rows("judgments"))
        return sum(server.billed.values())

    assert paid("at first", 2) == 10 * (2 + 1)
    assert paid("one more answer, which is judged beside the others", 3) == 10 * (3 + 2)
    assert paid("one more aspect", 3, "judging.judge.aspects=[helpfulness, overall]") == 10 * (3 + 3)
    assert paid("at first, elsewhere", 2, url=server.url.replace("127.0.0.1", "localhost")) == 10 * (3 + 3)
    assert set(server.billed.values()) == {1}
    assert paid("another temperature", 2, "judging.judge.temperature=0.5") == 10 * (3 + 4)


def test_a_refused_judgment_is_null_and_a_lost_one_is_asked_again(tmp_path: Path, server: FaultServer) -> None:
    stages = Stages(
        tmp_path / "run",
        f"sampling.pool={pool(server.url)}",
        "sampling.samples=2",
        f"judging.judge={judges(server.url, retries=0)}",
        *JUDGE,
    )
    stages.prompts(20)
    stages.candidates()
    server.faults = {"500": 0.3}
    with pytest.raises(UserError, match=r"rows failed, more than judging\.max_failed=0.01 allows"):
        stages.judgments()
    server.faults, server.refuse_all = {}, True
    report, _, _ = stages.judgments()
    assert (report.rows_in, report.rows_out) == (20, 20)
    rows = stages.rows("judgments")
    scores = [each["overall_score"] for row in rows for each in row["completions"]]
    assert None in scores
    assert any(score is not None for score in scores)
    assert all(
        "not this" in row["error"] for row in rows if None in [each["overall_score"] for each in row["completions"]]
    )


def test_a_real_engine_judges_under_the_schema(
    tmp_path: Path, server: FaultServer, vllm_url: str, base_model: Path
) -> None:
    from transformers import AutoTokenizer

    # A random model would write reasons without end: quotes are made likely, and each reason is an empty string.
    vocabulary = AutoTokenizer.from_pretrained(base_model).get_vocab()
    quotes = {str(number): 50 for token, number in vocabulary.items() if token.startswith('"')}
    stages = Stages(
        tmp_path / "run",
        f"sampling.pool={pool(server.url)}",
        "sampling.samples=2",
        f"judging.judge={judges(vllm_url, timeout_s=60)}",
        *JUDGE,
        "judging.judge.repeats=2",
        "judging.judge.temperature=1",
        "judging.judge.max_tokens=100",
        f"judging.judge.extra={json.dumps({'logit_bias': quotes})}",
    )
    stages.prompts(6)
    stages.candidates()
    report, agreement, _ = stages.judgments()
    assert report.rows_out == 6
    ratings = set()
    for row in stages.rows("judgments"):
        assert all(reply["raw"].startswith('{"answer_1": {') for reply in row["replies"])
        for each in row["completions"]:
            opinions = [one for one in each["opinions"] if one["aspect"] == "overall" and not one["is_reversed"]]
            assert len(opinions) == 2
            assert each["overall_score"] == pytest.approx(sum(one["rating"] for one in opinions) / 2)
            ratings |= {one["rating"] for one in opinions}
    assert ratings <= set(range(1, 11))
    assert len(ratings) > 2
    assert agreement["repeats"]["overall"]["pairs"] == 6


def test_engines_without_a_server_answer_as_one_and_a_reward_model_judges(
    tmp_path: Path, vllm_url: str, base_model: Path, byte_tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.data

    from tests.unit.judging.test_reward_judge import save, score_alone

    model = {
        "type": "offline",
        "name": "a",
        "model": str(base_model),
        # So few tokens a step that the engine would cut prompts into parts, if it were let.
        "engine": {"enforce_eager": True, "max_model_len": 256, "max_num_batched_tokens": 256, "dtype": "float32"},
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"},
        "batch_size": 8,
    }
    limits = ("sampling.samples=3", "sampling.max_tokens=10", "sampling.stop=[e]")
    reward = save(tmp_path / "reward", byte_tokenizer)
    (reward / "chat_template.jinja").write_text(template_text(Chat()) or "")
    monkeypatch.setattr(ray.data.DataContext.get_current(), "default_hash_shuffle_parallelism", 4)
    stages = Stages(
        tmp_path / "run",
        f"sampling.pool={json.dumps([model])}",
        *limits,
        f"judging.judge={{type: reward_model, model: {reward}}}",
    )
    stages.prompts(8, "5, 3, " * 200)
    report = stages.candidates()
    assert (report.rows_in, report.rows_out, report.dropped) == (9, 8, {"request_refused": 1})
    (refused,) = stages.rows("candidates", "dropped")
    assert refused["detail"].startswith("a (samples 0, 1, 2): VLLMValidationError: This model's maximum context length")
    served = Stages(tmp_path / "served", f"sampling.pool={pool(vllm_url, timeout_s=60)}", *limits)
    served.prompts(8)
    served.candidates()
    # Other prompt ids, or another seed, would give other answers at temperature 1.
    assert by_id(stages.rows("candidates")) == by_id(served.rows("candidates"))
    report, _, _ = stages.judgments()
    assert (report.rows_in, report.rows_out) == (8, 8)
    judged = stages.rows("judgments")[0]
    assert judged["messages"][0]["content"].startswith("What is")
    assert len({each["overall_score"] for row in stages.rows("judgments") for each in row["completions"]}) > 8
    alone = score_alone(reward, judged["completions"][0]["content"], judged["messages"][0]["content"])
    assert judged["completions"][0]["overall_score"] == pytest.approx(alone, abs=1e-4)


def by_id(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["prompt_id"])
