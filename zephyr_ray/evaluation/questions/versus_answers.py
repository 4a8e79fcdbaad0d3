"""A model's answers to the prompts on which it is compared with another one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.config.evaluation import EvaluationSection, Versus
from zephyr_ray.config.feedback import Server
from zephyr_ray.config.section import semantic
from zephyr_ray.data.formats import layouts
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
from zephyr_ray.schemas import Dropped

ANSWERS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
        ("error", pa.string()),
    ]
)
"""A model's answer to a prompt; null where it was refused (`error` says why)."""


def stage(
    evaluation: EvaluationSection, section: Versus, server: Server, seed: int, models: Mapping[str, Stage]
) -> Stage:
    """The stage `evaluation/versus_answers/NAME`.

    Args:
        evaluation: Bounds on the requests.
        section: The prompts, and how they are answered.
        server: The model.
        seed: The run's.
        models: The stages of this run that make models, by the names that deployments use for them.
    """
    fields = request_fields(section.temperature, section.max_tokens, evaluation.extra)

    def make(asked: AskedModel, context: StageContext) -> Manifest:
        answer = functools.partial(answer_prompt, fields=fields)
        return ask_about(asked.section, seed, read_prompts(section, seed), answer, ANSWERS, context)

    return asking_stage.stage(
        f"evaluation/versus_answers/{server.name}",
        "prompts",
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
        outside=lambda: fingerprint("prompts", "evaluation.versus.prompts", section.prompts),
        check=lambda: _check(section, seed),
    )


def read_prompts(section: Versus, seed: int) -> list[Row]:
    """Each different prompt of the file once, in an order that only the seed and the prompts decide.

    Raises:
        UserError: The file cannot be read, or a row is no prompt.
    """
    recorded = recorded_files.read(section.prompts)
    found = {}
    for number, row in enumerate(recorded.rows, 1):
        try:
            prompt = layouts.prompt(row)
        except Dropped as dropped:
            raise UserError(f"{section.prompts}: row {number} is no prompt: {dropped}") from None
        found[prompt["prompt_id"]] = prompt
    if recorded.broken:
        raise UserError(f"{section.prompts}: {recorded.broken} lines are no JSON objects; write the prompts again")
    return sorted(found.values(), key=lambda prompt: content_id("judged", seed, prompt["prompt_id"]))


async def answer_prompt(row: Row, ask: Ask, *, fields: Mapping[str, Any]) -> Row:
    """A row of `ANSWERS`."""
    outcome = await ask(row["messages"], 0, fields)
    made = {"prompt_id": row["prompt_id"]}
    if isinstance(outcome, Failure):
        return made
    return made | {"answer": outcome.content, "finish_reason": outcome.finish_reason, "tokens": outcome.tokens}


def read_answers(artifact: Artifact, prompts: Sequence[Row]) -> list[Row]:
    """The rows of an artifact of `ANSWERS` in the order of the prompts; one that was given up has no answer."""
    found = {row["prompt_id"]: row for row in artifact.table().to_pylist()}
    return [found.get(prompt["prompt_id"]) or dict.fromkeys(ANSWERS.names) for prompt in prompts]


def _check(section: Versus, seed: int) -> None:
    """Raises UserError where the file is not what it should be, before any work."""
    prompts = read_prompts(section, seed)
    if len(prompts) < 2:
        raise UserError(f"evaluation.versus.prompts={section.prompts}: there is one prompt; name a file of more")
