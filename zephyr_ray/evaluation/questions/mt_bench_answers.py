"""A model's answers to MT-Bench's questions: two turns, of which the second sees the first answer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from zephyr_ray.config.evaluation import EvaluationSection, MTBench
from zephyr_ray.config.feedback import Server
from zephyr_ray.config.section import semantic
from zephyr_ray.evaluation.questions import asking_stage, judge_prompts, mt_bench_questions
from zephyr_ray.evaluation.questions.asking import Ask, Message, Row, ask_about
from zephyr_ray.evaluation.questions.asking_stage import AskedModel
from zephyr_ray.evaluation.questions.files import fingerprint
from zephyr_ray.inference.request_plan import Failure
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

ANSWERS = pa.schema(
    [
        ("answer_id", pa.string()),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("finish_reasons", pa.list_(pa.string())),
        ("tokens", pa.list_(pa.int32())),
        ("temperature", pa.float64()),
        ("error", pa.string()),
    ]
)
"""A model's answers to a question, whose id stands in `question` as JSON. There are fewer answers than turns where one
was refused, and `error` says why; `tokens` are null where the server does not report them."""


def stage(
    evaluation: EvaluationSection, section: MTBench, server: Server, seed: int, models: Mapping[str, Stage]
) -> Stage:
    """The stage `evaluation/mt_bench_answers/NAME`.

    Args:
        evaluation: Bounds on the requests.
        section: The questions.
        server: The model.
        seed: The run's.
        models: The stages of this run that make models, by the names that deployments use for them.
    """
    fields = {"max_tokens": section.max_tokens, "extra_body": evaluation.extra or None}

    def make(asked: AskedModel, context: StageContext) -> Manifest:
        rows = mt_bench_questions.planned_answers(mt_bench_questions.read(section), server.name)
        answer = functools.partial(answer_question, fields=fields)
        return ask_about(asked.section, seed, rows, answer, ANSWERS, context)

    return asking_stage.stage(
        f"evaluation/mt_bench_answers/{server.name}",
        "questions",
        evaluation,
        server,
        models,
        field="evaluation.models",
        config={
            "model": semantic(server),
            "max_tokens": section.max_tokens,
            "extra": evaluation.extra,
            "temperatures": mt_bench_questions.TEMPERATURES,
            "seed": seed,
        },
        make=make,
        inputs={},
        outside=lambda: fingerprint("questions", "evaluation.mt_bench.questions", section.questions),
        check=lambda: _check(section),
    )


async def answer_question(row: Row, ask: Ask, *, fields: Mapping[str, Any]) -> Row:
    """A row of `ANSWERS`: the turns one after the other, until one has no answer.

    Args:
        row: Of `mt_bench_questions.planned_answers`.
        ask: Asks the model.
        fields: Of every request.
    """
    messages: list[Message] = []
    said = []
    for number, turn in enumerate(row["turns"]):
        messages.append({"role": "user", "content": turn})
        outcome = await ask(messages, number, {"temperature": row["temperature"], **fields})
        if isinstance(outcome, Failure):
            break
        messages.append({"role": "assistant", "content": outcome.content})
        said.append(outcome)
    return {
        **{name: row[name] for name in ("answer_id", "question", "temperature")},
        "answers": [each.content for each in said],
        "finish_reasons": [each.finish_reason for each in said],
        "tokens": [each.tokens for each in said],
    }


def _check(section: MTBench) -> None:
    """Raises UserError where a file of the benchmark is not what it should be, before any work."""
    mt_bench_questions.read_references(section, mt_bench_questions.read(section))
    judge_prompts.prompts(section.judge_prompts)
