"""A judge's scores of a model's answers to MT-Bench, and its verdicts on them beside the baseline's, in both orders.

Every answer that there should be has a row, also one without a request, because the answer is missing. A rating, a
verdict or the reason why there is none stands in the row; nothing else is ever a result.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from zephyr_ray.config.evaluation import EvaluationSection, MTBench
from zephyr_ray.config.section import semantic
from zephyr_ray.evaluation.fastchat_files import TURNS, Problem, QuestionId
from zephyr_ray.evaluation.questions import judge_prompts, judge_replies, mt_bench_questions
from zephyr_ray.evaluation.questions.asking import (
    Ask,
    Row,
    ask_about,
    asked_alone,
    at_commit,
    demands,
    preload_of,
)
from zephyr_ray.evaluation.questions.files import fingerprint
from zephyr_ray.evaluation.recorded_files import ERROR
from zephyr_ray.inference.request_plan import Failure
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.model_source import pool_models
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
"""What a judge says of an answer. `game` is 0 for a rating, 1 for a verdict with the model's answer shown as A, and 2
with the baseline's as A. `reply` is what the judge replied, `judgment` the same as a text with its mark, and `problem`
(`fastchat_files.Problem`) why there is neither a rating nor a verdict."""


class Answers(NamedTuple):
    """Whose answers are judged, and how."""

    model: str
    own: Mapping[QuestionId, list[str]]
    """The model's answers by question, a text for each turn that has one."""
    baseline: str | None = None
    others: Mapping[QuestionId, list[str]] = {}
    """The baseline's."""


def stage(
    evaluation: EvaluationSection,
    section: MTBench,
    seed: int,
    answers: Stage,
    baseline: Stage | None,
    models: Mapping[str, Stage],
) -> Stage:
    """The stage `evaluation/mt_bench_judgments/NAME`.

    Args:
        evaluation: The judge, and bounds on the requests.
        section: What is judged, and how.
        seed: The run's.
        answers: The model's.
        baseline: Those that they are compared with; None: they are not.
        models: As in `mt_bench_answers.stage`.
    """
    judge, name = evaluation.judge, answers.kind.rpartition("/")[2]
    assert judge is not None
    alone = asked_alone(evaluation, judge)
    pool = pool_models("evaluation.judge", alone.models, models)

    def make(context: StageContext) -> Manifest:
        rows = planned(section, answers_of(section, name, context))
        judged = functools.partial(judge_answer, **how_it_judges(evaluation))
        return ask_about(at_commit(alone, pool), seed, rows, judged, JUDGED, context)

    def outside() -> dict[str, str]:
        return {
            **pool.outside(),
            **fingerprint("questions", "evaluation.mt_bench.questions", section.questions),
            **fingerprint("references", "evaluation.mt_bench.references", section.references),
            "judge prompts": judge_prompts.fingerprint(section.judge_prompts),
        }

    return Stage(
        f"evaluation/mt_bench_judgments/{name}",
        "judgments",
        {
            "judge": semantic(judge),
            "structured": evaluation.structured,
            "temperature": evaluation.judge_temperature,
            "max_tokens": evaluation.judge_max_tokens,
            "extra": evaluation.judge_extra,
            "single": section.mode != "pairwise",
            "samples": section.samples,
            "baseline": None if baseline is None else section.baseline,
            "seed": seed,
        },
        make,
        inputs={"answers": answers, **({} if baseline is None else {"baseline": baseline}), **pool.inputs},
        outside=outside,
        commits=pool.commits,
        local_files=pool.local_files,
        resources=demands(alone),
        preload=preload_of(alone),
        check=lambda: _check(section),
    )


def how_it_judges(evaluation: EvaluationSection) -> dict[str, Any]:
    """The keyword arguments of `judge_answer` that a recipe decides."""
    fields = {
        "temperature": evaluation.judge_temperature,
        "max_tokens": evaluation.judge_max_tokens,
        "extra_body": evaluation.judge_extra or None,
    }
    return {"fields": fields, "structured": evaluation.structured}


def answers_of(section: MTBench, model: str, context: StageContext) -> Answers:
    """The answers that a stage with the inputs `answers` and `baseline` reads."""
    own = read_answers(context.input("answers"))
    if "baseline" not in context.stage.inputs:
        return Answers(model, own)
    return Answers(model, own, section.baseline, read_answers(context.input("baseline")))


def read_answers(artifact: Artifact) -> dict[QuestionId, list[str]]:
    """The answers of an artifact of `mt_bench_answers.ANSWERS` by question."""
    return {json.loads(row["question"]): row["answers"] for row in artifact.table().to_pylist()}


def planned(section: MTBench, answers: Answers) -> list[Row]:
    """What the judge is asked about a model: the same rows, in the same order, for the same answers.

    Raises:
        UserError: A file is not what it should be.
    """
    questions = mt_bench_questions.read(section)
    references = mt_bench_questions.read_references(section, questions)
    prompts = judge_prompts.prompts(section.judge_prompts)
    games = [0] if section.mode != "pairwise" else []
    games += [1, 2] if answers.baseline is not None else []
    return [
        _planned_row(prompts, name, question, turn, game, sample, answers, references.get(name))
        for name, question in questions.items()
        for turn in TURNS[: len(question["turns"])]
        for game in games
        for sample in range(section.samples)
    ]


def _planned_row(
    prompts: judge_prompts.Prompts,
    name: QuestionId,
    question: Row,
    turn: int,
    game: int,
    sample: int,
    answers: Answers,
    references: Sequence[str] | None,
) -> Row:
    prompt = prompts["verdict" if game else "rating", references is not None, turn]
    own, others = answers.own.get(name, []), answers.others.get(name, [])
    shown = {0: [own], 1: [own, others], 2: [others, own]}[game]
    user = prompt.text(
        dict(judge_prompts.fields(question["turns"][:turn], [_padded(each, turn) for each in shown], references or ()))
    )
    names = [answers.model, *([answers.baseline] if game else [])]
    return {
        "judgment_id": content_id("mt_bench", name, turn, names, game, sample, prompt.name, prompt.system, user),
        "question": json.dumps(name),
        "turn": turn,
        "game": game,
        "sample": sample,
        "prompt": prompt.name,
        "user_prompt": user,
        "messages": prompt.messages(user),
        "is_answered": all(len(each) >= turn for each in shown),
    }


def _padded(answers: Sequence[str], turn: int) -> list[str]:
    """The answers up to a turn; what is missing is FastChat's mark of an error."""
    return [*answers, *[ERROR] * turn][:turn]


async def judge_answer(row: Row, ask: Ask, *, fields: Mapping[str, Any], structured: bool) -> Row:
    """A row of `JUDGED`.

    Args:
        row: Of `planned`.
        ask: Asks the judge.
        fields: Of every request.
        structured: Whether the reply follows a JSON schema.
    """
    if not row["is_answered"]:
        return _row(row, problem="answer_error")
    kind: judge_replies.Kind = "verdict" if row["game"] else "rating"
    messages, more = row["messages"], {}
    if structured:
        last = messages[-1]
        note = judge_replies.format_note(kind)
        messages = [*messages[:-1], {**last, "content": f"{last['content']}\n\n{note}"}]
        more["response_format"] = judge_replies.response_format(kind)
    outcome = await ask(messages, 0, {**fields, **more})
    if isinstance(outcome, Failure):
        return _row(row, problem="judge_error")
    read = judge_replies.read(outcome.content, kind, structured=structured)
    problem: Problem | None = None
    if read.rating is None and read.verdict is None:
        problem = "no_verdict" if kind == "verdict" else "no_score"
        problem = problem if outcome.content.strip() else "empty"
    return _row(
        row, reply=outcome.content, judgment=read.text, rating=read.rating, verdict=read.verdict, problem=problem
    )


def _row(planned: Row, *, problem: Problem | None, **said: Any) -> Row:
    kept = ("judgment_id", "question", "turn", "game", "sample", "prompt", "user_prompt")
    return {**{name: planned[name] for name in kept}, "judgment": ERROR, **said, "problem": problem}


def judged_rows(section: MTBench, answers: Answers, artifact: Artifact) -> list[Row]:
    """Every judgment that was planned, in that order; one that was given up is a `judge_error`."""
    found = {row["judgment_id"]: row for row in artifact.table().to_pylist()}
    return [
        found.get(row["judgment_id"]) or _row(row, problem="judge_error", reply=None, rating=None, verdict=None)
        for row in planned(section, answers)
    ]


def _check(section: MTBench) -> None:
    """Raises UserError where a file is not what it should be, before any work."""
    judge_prompts.prompts(section.judge_prompts)
