"""A judge's verdicts on a model's answers to AlpacaEval's instructions beside the baseline's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zephyr_ray.config.evaluation import AlpacaEval, EvaluationSection
from zephyr_ray.config.member_seeds import hash_64
from zephyr_ray.evaluation.questions import judge_prompts, judging
from zephyr_ray.evaluation.questions.alpaca_eval_outputs import read_baseline, read_instructions, read_outputs
from zephyr_ray.evaluation.questions.asking import Row
from zephyr_ray.evaluation.questions.files import fingerprint
from zephyr_ray.evaluation.recorded_files import ERROR
from zephyr_ray.pipeline.stage import Stage, StageContext


class Compared(NamedTuple):
    """Whose answers are compared, in the order of the instructions; null where one is missing."""

    model: str
    outputs: Sequence[str | None]
    baseline: str
    others: Sequence[str | None]


def stage(
    evaluation: EvaluationSection,
    section: AlpacaEval,
    seed: int,
    outputs: Stage,
    baseline: Stage | None,
    models: Mapping[str, Stage],
) -> Stage:
    """The stage `evaluation/alpaca_eval_annotations/NAME`.

    Args:
        evaluation: The judge, and bounds on the requests.
        section: What is judged, and how.
        seed: The run's.
        outputs: The model's.
        baseline: The baseline's; None: a file holds them.
        models: The stages of this run that make models, by the names that deployments use for them.
    """
    name = outputs.kind.rpartition("/")[2]

    def plan(context: StageContext) -> list[Row]:
        return planned(section, seed, compared(section, name, context, "outputs", "baseline"))

    return judging.stage(
        f"evaluation/alpaca_eval_annotations/{name}",
        evaluation,
        seed,
        models,
        config={"orders": section.orders, "baseline": section.baseline if baseline else None},
        inputs={"outputs": outputs} | ({} if baseline is None else {"baseline": baseline}),
        outside=lambda: files_of(section, baseline),
        plan=plan,
    )


def files_of(section: AlpacaEval, baseline: Stage | None) -> dict[str, str]:
    """Fingerprints of everything that decides what a judge is asked. Raises UserError where a file is missing."""
    path = section.baseline if baseline is None else None
    return {
        **fingerprint("instructions", "evaluation.alpaca_eval.instructions", section.instructions),
        **fingerprint("baseline file", "evaluation.alpaca_eval.baseline", path),
        "judge prompts": judge_prompts.fingerprint(None),
    }


def compared(section: AlpacaEval, name: str, context: StageContext, own: str, other: str) -> Compared:
    """The answers of a model and of the baseline.

    Args:
        section: Where they are from.
        name: The model's.
        context: Of a stage that reads them.
        own: The input with the model's answers.
        other: The one with the baseline's, if a stage makes them.
    """
    instructions = read_instructions(section)
    outputs = read_outputs(context.input(own), len(instructions))
    if other in context.stage.inputs:
        others = read_outputs(context.input(other), len(instructions))
        return Compared(name, outputs, section.baseline, others)
    return Compared(name, outputs, *read_baseline(section, instructions))


def planned(section: AlpacaEval, seed: int, answers: Compared) -> list[Row]:
    """What the judge is asked about a model."""
    prompt = judge_prompts.prompts(None)["verdict", False, 1]
    rows = []
    for place, row in enumerate(read_instructions(section)):
        own, other = answers.outputs[place], answers.others[place]
        for game in games_of(section, seed, row["instruction"]):
            shown = [own, other] if game == 1 else [other, own]
            texts = [[ERROR if text is None else text] for text in shown]
            rows.append(
                judging.planned_row(
                    prompt,
                    dict(judge_prompts.fields([row["instruction"]], texts, ())),
                    [answers.model, answers.baseline],
                    question=json.dumps(place),
                    turn=1,
                    game=game,
                    sample=0,
                    is_answered=own is not None and other is not None,
                )
            )
    return rows


def games_of(section: AlpacaEval, seed: int, instruction: str) -> tuple[int, ...]:
    """The orders in which two answers are shown: 1 for the model's first, 2 for the baseline's."""
    return (1, 2) if section.orders == "both" else (1 + hash_64("first shown", seed, instruction) % 2,)
