"""A model's answers to AlpacaEval's instructions, and those of a baseline that a file holds."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.config.evaluation import AlpacaEval, EvaluationSection
from zephyr_ray.config.feedback import Server
from zephyr_ray.config.section import semantic
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import recorded_files
from zephyr_ray.evaluation.questions import asking_stage
from zephyr_ray.evaluation.questions.asking import Ask, Row, ask_about, request_fields
from zephyr_ray.evaluation.questions.asking_stage import AskedModel
from zephyr_ray.evaluation.questions.files import fingerprint
from zephyr_ray.inference.request_plan import Failure
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

OUTPUTS = pa.schema(
    [
        ("output_id", pa.string()),
        ("place", pa.int32()),
        ("output", pa.string()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
        ("error", pa.string()),
    ]
)
"""A model's answer to the instruction at a place of the file, from 0; null where it was refused (`error` says why)."""


def stage(
    evaluation: EvaluationSection, section: AlpacaEval, server: Server, seed: int, models: Mapping[str, Stage]
) -> Stage:
    """The stage `evaluation/alpaca_eval_outputs/NAME`.

    Args:
        evaluation: Bounds on the requests.
        section: The instructions, and how they are answered.
        server: The model.
        seed: The run's.
        models: The stages of this run that make models, by the names that deployments use for them.
    """
    fields = request_fields(section.temperature, section.max_tokens, evaluation.extra)

    def make(asked: AskedModel, context: StageContext) -> Manifest:
        rows = planned(read_instructions(section), server.name)
        answer = functools.partial(answer_instruction, fields=fields)
        return ask_about(asked.section, seed, rows, answer, OUTPUTS, context)

    return asking_stage.stage(
        f"evaluation/alpaca_eval_outputs/{server.name}",
        "instructions",
        evaluation,
        server,
        models,
        field="evaluation.models",
        config={
            "model": semantic(server),
            "temperature": section.temperature,
            "max_tokens": section.max_tokens,
            "extra": evaluation.extra,
            "seed": seed,
        },
        make=make,
        inputs={},
        outside=lambda: fingerprint("instructions", "evaluation.alpaca_eval.instructions", section.instructions),
        check=lambda: _check(evaluation, section),
    )


def read_instructions(section: AlpacaEval) -> list[Row]:
    """The instructions, each with the `dataset` that it is from, or null. One may be there several times.

    Raises:
        UserError: The file cannot be read, or a row has no instruction.
    """
    recorded = recorded_files.read(section.instructions)
    texts = [row.get("instruction") for row in recorded.rows]
    wrong = sum(not (isinstance(text, str) and text.strip()) for text in texts) + recorded.broken
    if wrong:
        raise UserError(f"{section.instructions}: {wrong} of {recorded.lines} rows have no text under instruction")
    return [{"instruction": row["instruction"], "dataset": row.get("dataset")} for row in recorded.rows]


def planned(instructions: Sequence[Row], model: str) -> list[Row]:
    """What a model is asked. An instruction that is there again is asked again, with another seed."""
    seen: Counter[str] = Counter()
    rows = []
    for place, row in enumerate(instructions):
        text = row["instruction"]
        output_id = content_id("alpaca_eval", text, seen[text], model)
        seen[text] += 1
        rows.append({"output_id": output_id, "place": place, "instruction": text})
    return rows


async def answer_instruction(row: Row, ask: Ask, *, fields: Mapping[str, Any]) -> Row:
    """A row of `OUTPUTS`."""
    made = {"output_id": row["output_id"], "place": row["place"]}
    outcome = await ask([{"role": "user", "content": row["instruction"]}], 0, fields)
    if isinstance(outcome, Failure):
        return made
    return made | {"output": outcome.content, "finish_reason": outcome.finish_reason, "tokens": outcome.tokens}


def read_outputs(artifact: Artifact, count: int) -> list[str | None]:
    """The answers of an artifact of `OUTPUTS` in the order of the instructions, null where one is missing."""
    found = {row["place"]: row["output"] for row in artifact.table().to_pylist()}
    return [found.get(place) for place in range(count)]


def read_baseline(section: AlpacaEval, instructions: Sequence[Row]) -> tuple[str, list[str]]:
    """The name of the baseline that a file holds, and its answers in the order of the instructions.

    Raises:
        UserError: The file cannot be read, is of several models, or lacks an answer.
    """
    path = section.baseline
    answers: dict[str, list[str]] = defaultdict(list)
    rows = recorded_files.read(path).rows
    for row in rows:
        if isinstance(row.get("output"), str):
            answers[str(row.get("instruction"))].append(row["output"])
    names = sorted({str(row["generator"]) for row in rows if row.get("generator") is not None})
    if len(names) != 1:
        raise UserError(f"{path}: the baseline is one model, named by generator; there are {len(names)}")
    wanted = Counter(row["instruction"] for row in instructions)
    lacking = sum(max(0, count - len(answers[text])) for text, count in wanted.items())
    if lacking:
        raise UserError(f"{path} lacks answers to {lacking} of {len(instructions)} instructions; add them")
    turn = {text: iter(found) for text, found in answers.items()}
    return names[0], [next(turn[row["instruction"]]) for row in instructions]


def _check(evaluation: EvaluationSection, section: AlpacaEval) -> None:
    """Raises UserError where a file is not what it should be, before any work."""
    instructions = read_instructions(section)
    if section.baseline not in evaluation.names:
        name, _ = read_baseline(section, instructions)
        if name in evaluation.names:
            raise UserError(f"{section.baseline} is of {name}, as a model of evaluation.models is named; rename that")
