"""What evaluates the models of a run: functions, questions and a judge, and people's labels."""

from __future__ import annotations

from zephyr_ray.config.recipe import Recipe
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import function_stage
from zephyr_ray.evaluation.judge_agreement import stages as judge_agreement
from zephyr_ray.evaluation.questions import stages as questions
from zephyr_ray.pipeline.rounds import in_folder
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.training import extrapolated
from zephyr_ray.training.methods import methods
from zephyr_ray.wiring.feedback import reward_methods


def by_functions(recipe: Recipe, models: dict[str, Stage], skip: bool) -> list[Stage]:
    """The evaluations that are functions of the user's own.

    Args:
        recipe: The recipe.
        models: The stages on the way to the aligned model whose checkpoints may be evaluated, by name.
        skip: Leave out those of other models, where the run starts from a model that it is given.

    Raises:
        UserError: An evaluation is of a stage that the recipe does not have.
    """
    found = []
    for each in recipe.evaluation.functions:
        missing = [name for name in each.models if name not in models]
        if not missing:
            found.append(function_stage.stage(each, recipe.run.seed, [models[name] for name in each.models]))
        elif not skip:
            raise UserError(
                f"evaluation.functions {each.name}: models={', '.join(missing)}: this recipe has no such stage"
            )
    return found


def by_questions(recipe: Recipe, models: dict[str, Stage]) -> list[Stage]:
    """The evaluations that ask models questions, and a judge about their answers."""
    for each in recipe.evaluation.deployments:
        if each.model in reward_methods():
            raise UserError(f"evaluation {each.name}: model={each.model} is a reward model, which answers nobody")
    asked = {each.model for each in recipe.evaluation.deployments}
    known = {*methods(), extrapolated.KIND}
    names = {"base", *known, *(name for name in asked if in_folder(name)[1] in known)}
    found = questions.stages(recipe.evaluation, recipe.run.seed, models, names)
    if recipe.evaluation.judge_agreement is not None:
        labelled = recipe.evaluation.judge_agreement
        found += judge_agreement.stages(labelled, recipe.judging, recipe.chat, recipe.run.seed, models)
    return found
