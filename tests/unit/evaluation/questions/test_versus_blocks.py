"""Judging in blocks: it stops when it is decided, goes on where it stopped, and spends one budget on all blocks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.evaluation.questions.asked import Model
from zephyr_ray.config.evaluation import EvaluationSection, Versus
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.questions import versus_result
from zephyr_ray.evaluation.questions.asking import asked_alone
from zephyr_ray.evaluation.questions.versus_answers import ANSWERS, read_prompts
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.stage import Stage, StageContext

PROMPTS = 60
REPLY_USD = 0.01


def server(name: str) -> dict[str, Any]:
    price = {"input": 1.0, "output": 1.0}
    return {"type": "endpoint", "name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, "price": price}


class Judge:
    """Takes the place of `ask_about`: asks a model in this process, and counts what it asked."""

    def __init__(self, verdict: Callable[[str], str]):
        self.verdict, self.asked, self.budgets = verdict, 0, [0.0]
        self.breaks_after: int | None = None

    def __call__(
        self,
        section: EvaluationSection,
        seed: int,
        rows: Sequence[Any],
        make_row: Any,
        schema: Any,
        context: StageContext,
    ) -> dict[str, Any]:
        self.budgets.append(section.budget_usd or 0.0)
        if self.breaks_after is not None and self.asked >= self.breaks_after:
            raise UserError("the server is gone")
        made = [asyncio.run(make_row(row, Model(self.verdict(row["user_prompt"])))) for row in rows]
        self.asked += len(rows)
        artifact = context.artifact
        (Path(artifact.path) / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(made, schema=schema), f"{artifact.path}/data/a.parquet")
        return {"files": [{"name": "data/a.parquet", "rows": len(made)}], "asked": {"usd": REPLY_USD * len(rows)}}


class World:
    """Answers of two models to the same prompts, in a run."""

    def __init__(self, folder: Path, judge: Judge, **fields: Any):
        rows = [{"prompt": f"p{number}"} for number in range(PROMPTS)]
        (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.section = Versus(prompts=str(folder / "prompts.jsonl"), a="one", b="two", block=10)
        self.evaluation = EvaluationSection.model_validate(
            {"models": [server("one"), server("two")], "judge": server("judge"), "versus": self.section, **fields}
        )
        self.run = Run(str(folder / "run"))
        stages = {name: Stage(f"answers/{name}", "prompts", None, lambda context: {}) for name in "ab"}
        self.stage = Stage("evaluation/versus", "comparisons", None, lambda context: {}, inputs=stages)
        for name, text in (("a", "good"), ("b", "poor")):
            self._answers(self.run.artifact(f"answers/{name}"), text)

    def _answers(self, artifact: Artifact, text: str) -> None:
        prompts = read_prompts(self.section, 0)
        rows = [{"prompt_id": each["prompt_id"], "answer": text, "tokens": 1} for each in prompts]
        artifact.begin("known")
        (Path(artifact.path) / "data").mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema=ANSWERS), f"{artifact.path}/data/a.parquet")
        artifact.finish({"fingerprint": "known", "files": [{"name": "data/a.parquet", "rows": len(rows)}]})

    def judged(self) -> dict[str, Any]:
        """Makes the stage, and returns its numbers."""
        assert self.evaluation.judge is not None
        artifact = self.run.artifact("evaluation/versus")
        artifact.begin("known")
        context = StageContext(self.stage, self.run, artifact, None)
        alone = asked_alone(self.evaluation, self.evaluation.judge)
        versus_result.make_result(self.evaluation, alone, self.section, 0, "judge", context)
        told: dict[str, Any] = json.loads((Path(artifact.path) / "summary.json").read_text())
        return told


def prefers_good(prompt: str) -> str:
    return "[[A]]" if prompt.index("good") < prompt.index("poor") else "[[B]]"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    judge = Judge(prefers_good)
    monkeypatch.setattr(versus_result, "ask_about", judge)
    return judge


def test_it_stops_when_it_is_decided(tmp_path: Path, judge: Judge) -> None:
    told = World(tmp_path, judge).judged()
    assert (told["prompts_judged"], judge.asked) == (20, 40)
    assert (told["win_rate"], told["sequential"]["decision"]["winner"]) == (1.0, "a")
    assert told["counts"] == {"in": 20, "out": 20, "dropped": {}}


def test_a_judge_that_sees_places_decides_nothing(tmp_path: Path, judge: Judge) -> None:
    judge.verdict = lambda prompt: "[[A]]"
    told = World(tmp_path, judge).judged()
    assert (told["prompts_judged"], judge.asked) == (PROMPTS, 2 * PROMPTS)
    assert (told["win_rate"], told["sequential"]["decision"]["winner"]) == (0.5, None)
    assert told["orders"] == {"n": PROMPTS, "same": 0, "first_shown": PROMPTS, "second_shown": 0}


def test_a_judge_that_says_nothing_is_refused(tmp_path: Path, judge: Judge) -> None:
    judge.verdict = lambda prompt: "who knows"
    with pytest.raises(UserError, match="not one of 60 comparisons has a result"):
        World(tmp_path, judge).judged()


def test_it_goes_on_where_it_stopped(tmp_path: Path, judge: Judge) -> None:
    judge.breaks_after = 20
    world = World(tmp_path, judge)
    with pytest.raises(UserError, match="the server is gone"):
        world.judged()
    judge.breaks_after = None
    assert world.judged()["prompts_judged"] == 20
    assert judge.asked == 40


def test_one_budget_for_all_blocks(tmp_path: Path, judge: Judge) -> None:
    """A block of 20 requests costs 0.20 US dollars."""
    judge.verdict = lambda prompt: "[[C]]"
    world = World(tmp_path, judge, budget_usd=0.5)
    with pytest.raises(UserError, match=r"the budget is spent \(0.60 of 0.5 US dollars\) and it is not decided"):
        world.judged()
    assert judge.budgets[1:] == pytest.approx([0.5, 0.3, 0.1])
