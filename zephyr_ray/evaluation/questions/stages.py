"""The stages that ask a recipe's models questions, and a judge about the answers: a stage for each model.

So a deployed model is there alone, and a new checkpoint or one model more asks for nothing but its own answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from zephyr_ray.config.evaluation import AlpacaEval, EvaluationSection, MTBench, Versus
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.questions import (
    alpaca_eval_annotations,
    alpaca_eval_outputs,
    alpaca_eval_result,
    mt_bench_answers,
    mt_bench_judgments,
    mt_bench_result,
    versus_answers,
    versus_result,
)
from zephyr_ray.pipeline.stage import Stage


def stages(section: EvaluationSection, seed: int, models: Mapping[str, Stage], names: Collection[str]) -> list[Stage]:
    """The stages, in order.

    Args:
        section: What is asked of which models.
        seed: The run's.
        models: The stages of this run that make models, by name.
        names: Of all stages that make models, also of those that this recipe does not have.

    Raises:
        UserError: A deployment names a stage that the recipe does not have.
    """
    for each in section.deployments:
        if each.model in names and each.model not in models:
            raise UserError(f"evaluation {each.name}: model={each.model}: this recipe has no such stage")
    found = [] if section.mt_bench is None else _mt_bench(section, section.mt_bench, seed, models)
    if section.alpaca_eval is not None:
        found += _alpaca_eval(section, section.alpaca_eval, seed, models)
    if section.versus is not None:
        found += _versus(section, section.versus, seed, models)
    return found


def _mt_bench(section: EvaluationSection, bench: MTBench, seed: int, models: Mapping[str, Stage]) -> list[Stage]:
    answers = {each.name: mt_bench_answers.stage(section, bench, each, seed, models) for each in section.models}
    baseline = None if bench.baseline is None else answers[bench.baseline]
    judgments = {
        name: mt_bench_judgments.stage(section, bench, seed, own, None if own is baseline else baseline, models)
        for name, own in answers.items()
        if bench.mode != "pairwise" or own is not baseline
    }
    return [*answers.values(), *judgments.values(), mt_bench_result.stage(section, bench, answers, judgments)]


def _alpaca_eval(section: EvaluationSection, bench: AlpacaEval, seed: int, models: Mapping[str, Stage]) -> list[Stage]:
    outputs = {each.name: alpaca_eval_outputs.stage(section, bench, each, seed, models) for each in section.models}
    baseline = outputs.get(bench.baseline)
    annotations = {
        name: alpaca_eval_annotations.stage(section, bench, seed, own, baseline, models)
        for name, own in outputs.items()
        if own is not baseline
    }
    result = alpaca_eval_result.stage(section, bench, seed, outputs, annotations)
    return [*outputs.values(), *annotations.values(), result]


def _versus(section: EvaluationSection, bench: Versus, seed: int, models: Mapping[str, Stage]) -> list[Stage]:
    a, b = (versus_answers.stage(section, bench, section.model(name), seed, models) for name in (bench.a, bench.b))
    return [a, b, versus_result.stage(section, bench, seed, a, b, models)]
