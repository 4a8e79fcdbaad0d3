"""A judge's rating of an answer, or its verdict on two: what benchmarks share that ask a judge.

Every answer that there should be has a row, also one without a request, because the answer is missing. A rating, a
verdict or the reason why there is none stands in the row; nothing else is ever a result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.config.evaluation import EvaluationSection
from zephyr_ray.config.feedback import Server
from zephyr_ray.config.section import semantic
from zephyr_ray.evaluation.fastchat_files import Problem
from zephyr_ray.evaluation.questions import asking_stage, judge_replies
from zephyr_ray.evaluation.questions.asking import Ask, MakeRow, Row, ask_about, request_fields
from zephyr_ray.evaluation.questions.asking_stage import AskedModel
from zephyr_ray.evaluation.questions.judge_prompts import JudgePrompt
from zephyr_ray.evaluation.recorded_files import ERROR
from zephyr_ray.inference.request_plan import Failure
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

JUDGED = pa.schema(
    [
        ("judgment_id", pa.string()),
        ("question", pa.string()),
        ("turn", pa.int32()),
        ("game", pa.int32()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("user_prompt", pa.string()),
        ("reply", pa.string()),
        ("judgment", pa.string()),
        ("rating", pa.float64()),
        ("verdict", pa.string()),
        ("problem", pa.string()),
        ("error", pa.string()),
    ]
)
"""What a judge says of an answer. `question` is its id as JSON. `game` is 0 for a rating, 1 for a verdict with the
model's answer shown as A, and 2 with the baseline's as A. `reply` is what the judge replied, `judgment` the same as a
text with its mark, and `problem` (`fastchat_files.Problem`) why there is neither a rating nor a verdict."""

_PLANNED = ("judgment_id", "question", "turn", "game", "sample", "prompt", "user_prompt")


def stage(
    kind: str,
    evaluation: EvaluationSection,
    seed: int,
    models: Mapping[str, Stage],
    *,
    config: Mapping[str, Any],
    inputs: Mapping[str, Stage],
    outside: Callable[[], dict[str, str]],
    plan: Callable[[StageContext], list[Row]],
) -> Stage:
    """A stage that writes `JUDGED`.

    Args:
        kind: The stage's.
        evaluation: The judge, and bounds on the requests.
        seed: The run's.
        models: The stages of this run that make models, by the names that deployments use for them.
        config: The semantic values of what is judged, beside those of the judge.
        inputs: What is judged.
        outside: Fingerprints of files. Raises UserError.
        plan: What the judge is asked about (`planned_row`); the same rows in the same order for the same inputs.
    """
    judge = evaluation.judge
    assert judge is not None

    def make(asked: AskedModel, context: StageContext) -> Manifest:
        return ask_about(asked.section, seed, plan(context), row_maker(evaluation), JUDGED, context)

    return asking_stage.stage(
        kind,
        "judgments",
        evaluation,
        judge,
        models,
        field="evaluation.judge",
        config={**judge_config(evaluation, judge, seed), **config},
        make=make,
        inputs=inputs,
        outside=outside,
    )


def judge_config(evaluation: EvaluationSection, judge: Server, seed: int) -> Row:
    """The semantic values of a judge."""
    return {
        "judge": semantic(judge),
        "structured": evaluation.structured,
        "temperature": evaluation.judge_temperature,
        "max_tokens": evaluation.judge_max_tokens,
        "extra": evaluation.judge_extra,
        "seed": seed,
    }


def row_maker(evaluation: EvaluationSection) -> MakeRow:
    """`judge_answer`, as the section says."""
    fields = request_fields(evaluation.judge_temperature, evaluation.judge_max_tokens, evaluation.judge_extra)
    return functools.partial(judge_answer, fields=fields, structured=evaluation.structured)


def planned_row(
    prompt: JudgePrompt,
    fields: Mapping[str, str],
    names: Sequence[str],
    *,
    question: str,
    turn: int,
    game: int,
    sample: int,
    is_answered: bool,
) -> Row:
    """What the judge is asked about one answer, or two. Its id is a hash of all that it is about.

    Args:
        prompt: What it is asked.
        fields: What the prompt is filled with.
        names: Of the model, and of the baseline.
        question: As in `JUDGED`.
        turn: Of the answer, from 1.
        game: As in `JUDGED`.
        sample: How many times the judge was asked the same before.
        is_answered: Whether every answer is there; if one is not, the judge is not asked.
    """
    user = prompt.text(fields)
    place = (question, turn, [*names], game, sample)
    return {
        "judgment_id": content_id("judgment", place, prompt.name, prompt.system, user),
        "question": question,
        "turn": turn,
        "game": game,
        "sample": sample,
        "prompt": prompt.name,
        "user_prompt": user,
        "messages": prompt.messages(user),
        "is_answered": is_answered,
    }


async def judge_answer(row: Row, ask: Ask, *, fields: Mapping[str, Any], structured: bool) -> Row:
    """A row of `JUDGED`.

    Args:
        row: Of `planned_row`.
        ask: Asks the judge.
        fields: Of every request.
        structured: Whether the reply follows a JSON schema.
    """
    if not row["is_answered"]:
        return _without_reply(row, "answer_error")
    kind: judge_replies.Kind = "verdict" if row["game"] else "rating"
    messages, more = row["messages"], {}
    if structured:
        last, note = messages[-1], judge_replies.format_note(kind)
        messages = [*messages[:-1], {**last, "content": f"{last['content']}\n\n{note}"}]
        more["response_format"] = judge_replies.response_format(kind)
    outcome = await ask(messages, 0, {**fields, **more})
    if isinstance(outcome, Failure):
        return _without_reply(row, "judge_error")
    read = judge_replies.read(outcome.content, kind, structured=structured)
    return {
        **{name: row[name] for name in _PLANNED},
        "reply": outcome.content,
        "judgment": read.text,
        "rating": read.rating,
        "verdict": read.verdict,
        "problem": _problem(read, kind),
    }


def _problem(read: judge_replies.Read, kind: judge_replies.Kind) -> Problem | None:
    """Why a reply is no result."""
    if read.rating is not None or read.verdict is not None:
        return None
    if not read.text.strip():
        return "empty"
    return "no_verdict" if kind == "verdict" else "no_score"


def _without_reply(planned: Row, problem: Problem) -> Row:
    return {
        **dict.fromkeys(JUDGED.names),
        **{name: planned[name] for name in _PLANNED},
        "judgment": ERROR,
        "problem": problem,
    }


def judged_rows(planned: Sequence[Row], artifact: Artifact) -> list[Row]:
    """Every judgment that was planned, in that order; one that was given up is a `judge_error`."""
    found = {row["judgment_id"]: row for row in artifact.table().to_pylist()}
    return [found.get(row["judgment_id"]) or _without_reply(row, "judge_error") for row in planned]
