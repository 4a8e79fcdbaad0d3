"""A against B by the judge, a block of prompts after the other, until it is decided which is better.

Every prompt is judged in both orders of the answers. After each block the interval that holds at all looks is held
against 50 % (`evaluation.sequential`). A block is an artifact of its own, `evaluation/versus_blocks/FINGERPRINT`: a
killed run goes on where it stopped, and a paid judgment stays, whatever becomes of the other blocks.

It writes `comparisons.jsonl`, which `jobs/evaluate.py versus --judged` reads, `summary.json` and `table.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zephyr_ray.config.evaluation import EvaluationSection, Versus
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.own_comparisons import own_comparison
from zephyr_ray.evaluation.questions import asking_stage, judge_prompts, judging
from zephyr_ray.evaluation.questions.asking import Row, ask_about
from zephyr_ray.evaluation.questions.asking_stage import AskedModel
from zephyr_ray.evaluation.questions.files import fingerprint, write_lines, write_result
from zephyr_ray.evaluation.questions.versus_answers import read_answers, read_prompts
from zephyr_ray.evaluation.recorded_files import ERROR
from zephyr_ray.evaluation.sequential import interval_at_any_time
from zephyr_ray.evaluation.versus import as_json, compare_until_decided, table_lines
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

BLOCKS = "evaluation/versus_blocks"
_VERDICTS: dict[int, dict[str, Verdict]] = {
    1: {"A": "a", "B": "b", "C": "tie"},
    2: {"A": "b", "B": "a", "C": "tie"},
}
"""Which answer a verdict is for, by the game: A's answer is shown as A in the first and as B in the second."""


def stage(
    evaluation: EvaluationSection, section: Versus, seed: int, a: Stage, b: Stage, models: Mapping[str, Stage]
) -> Stage:
    """The stage `evaluation/versus`.

    Args:
        evaluation: The judge, and bounds on the requests of all blocks together.
        section: What is compared.
        seed: The run's.
        a: The answers of A.
        b: Those of B.
        models: The stages of this run that make models, by the names that deployments use for them.
    """
    judge = evaluation.judge
    assert judge is not None
    config = judging.judge_config(evaluation, judge, seed)

    def make(asked: AskedModel, context: StageContext) -> Manifest:
        known = content_id(config, judge_prompts.fingerprint(None), asked.pool.outside())
        return make_result(evaluation, asked.section, section, seed, known, context)

    return asking_stage.stage(
        "evaluation/versus",
        "comparisons",
        evaluation,
        judge,
        models,
        field="evaluation.judge",
        config={**config, "a": section.a, "b": section.b, "block": section.block},
        make=make,
        inputs={"a": a, "b": b},
        outside=lambda: {
            **fingerprint("prompts", "evaluation.versus.prompts", section.prompts),
            "judge prompts": judge_prompts.fingerprint(None),
        },
        is_evaluation=True,
    )


def make_result(
    evaluation: EvaluationSection,
    alone: EvaluationSection,
    section: Versus,
    seed: int,
    judge: str,
    context: StageContext,
) -> Manifest:
    """Judges blocks until it is decided, and writes what came of it.

    Args:
        evaluation: How the judge is asked.
        alone: The judge as the one model (`asked_alone`).
        section: What is compared.
        seed: The run's.
        judge: A hash of everything about the judge.
        context: The stage's, with the inputs `a` and `b`.

    Raises:
        UserError: Judgments are left that the next run can mend, or none has a result.
    """
    prompts = read_prompts(section, seed)
    answers = [*zip(*(read_answers(context.input(name), prompts) for name in "ab"), strict=True)]
    found: list[Row] = []
    spent = 0.0
    for start in range(0, len(prompts), section.block):
        chosen = slice(start, start + section.block)
        pairs = zip(prompts[chosen], answers[chosen], strict=True)
        planned = [row for prompt, both in pairs for row in games_of(section, prompt, both)]
        block, cost = _judged(evaluation, alone, seed, judge, planned, spent, context)
        spent += cost
        found += comparison_rows(prompts[chosen], answers[chosen], judging.judged_rows(planned, block))
        if is_decided(found):
            break
    result = compare_until_decided(
        section.a, section.b, [own_comparison(row, row["id"]) for row in found], block=section.block
    )
    if not result.win_rate.n:
        raise UserError(f"evaluation/versus: not one of {len(found)} comparisons has a result ({result.left_out})")
    saved = len(prompts) - len(found)
    lines = [*table_lines(result), f"{len(found)} of {len(prompts)} prompts were judged; {saved} were not needed"]
    counts = {"in": len(found), "out": result.win_rate.n, "dropped": result.left_out}
    numbers = as_json(result) | {"prompts_given": len(prompts), "prompts_judged": len(found)}
    files = [write_lines(context.artifact, "comparisons.jsonl", found)]
    return write_result(context.artifact, files, numbers, lines, counts)


def games_of(section: Versus, prompt: Row, answers: Sequence[Row]) -> list[Row]:
    """What the judge is asked about two answers: which is better, in both orders."""
    asked = judge_prompts.prompts(None)["verdict", False, 1]
    texts = [answer["answer"] for answer in answers]
    shown = [ERROR if text is None else text for text in texts]
    return [
        judging.planned_row(
            asked,
            dict(judge_prompts.fields([conversation(prompt["messages"])], [[text] for text in order], ())),
            [section.a, section.b],
            question=json.dumps(prompt["prompt_id"]),
            turn=1,
            game=game,
            sample=0,
            is_answered=None not in texts,
        )
        for game, order in ((1, shown), (2, shown[::-1]))
    ]


def conversation(messages: Sequence[Mapping[str, str]]) -> str:
    """What precedes an answer, for the judge: the user's message, or all messages with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def comparison_rows(prompts: Sequence[Row], answers: Sequence[Sequence[Row]], judged: Sequence[Row]) -> list[Row]:
    """Our own lines of comparisons (`own_comparisons`), with null for a verdict that there is not."""
    verdicts: dict[tuple[str, int], Verdict | None] = {
        (json.loads(row["question"]), row["game"]): _VERDICTS[row["game"]].get(row["verdict"]) for row in judged
    }
    rows = []
    for prompt, (a, b) in zip(prompts, answers, strict=True):
        prompt_id = prompt["prompt_id"]
        verdict, swapped = (verdicts[prompt_id, game] for game in (1, 2))
        sides = (("a_text", a), ("b_text", b))
        texts = {name: ERROR if row["answer"] is None else row["answer"] for name, row in sides}
        tokens = {"a_tokens": a["tokens"], "b_tokens": b["tokens"]}
        rows.append({"id": prompt_id, "verdict": verdict, "swapped_verdict": swapped, **tokens, **texts})
    return rows


def is_decided(rows: Sequence[Row]) -> bool:
    """Whether the interval that holds at all looks excludes 50 %."""
    outcomes = [own_comparison(row, row["id"]).outcome for row in rows]
    low, high = interval_at_any_time(np.array([each for each in outcomes if each is not None]))
    return low > 0.5 or high < 0.5


def _judged(
    evaluation: EvaluationSection,
    alone: EvaluationSection,
    seed: int,
    judge: str,
    planned: list[Row],
    spent: float,
    context: StageContext,
) -> tuple[Artifact, float]:
    """The finished artifact of a block, and what it cost in US dollars. The budget is that of all blocks together."""
    known = content_id(judge, [row["judgment_id"] for row in planned])
    block = context.run.artifact(f"{BLOCKS}/{known[:16]}")
    if not block.is_finished(known):
        if alone.budget_usd is not None and alone.budget_usd <= spent:
            raise UserError(
                f"evaluation/versus: the budget is spent ({spent:.2f} of {alone.budget_usd:g} US dollars) and it is "
                "not decided; raise evaluation.budget_usd; what is judged is kept"
            )
        left = None if alone.budget_usd is None else alone.budget_usd - spent
        block.begin(known)
        asked = alone.model_copy(update={"budget_usd": left})
        made = ask_about(
            asked, seed, planned, judging.row_maker(evaluation), judging.JUDGED, replace(context, artifact=block)
        )
        block.finish({"fingerprint": known, **made})
    manifest: dict[str, Any] = block.manifest() or {}
    return block, float((manifest.get("asked") or {}).get("usd", 0.0))
