"""The way Zephyr was made (arXiv 2310.16944) as a list of stages, in order, and a function that runs it."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from pydantic import ValidationError

from zephyr_ray.chat_template import read_template
from zephyr_ray.cluster import connect
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.data import prompts
from zephyr_ray.data.io.sources import GENERATED
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import runner
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.rounds import Round, check_rounds
from zephyr_ray.pipeline.stage import Stage, folder_of, up_to
from zephyr_ray.training import extrapolated
from zephyr_ray.training.methods import recipe_type
from zephyr_ray.wiring import alignment, best_answers, evaluation, feedback, missing, on_policy, supervised, unpaired


def stages(recipe: Recipe) -> list[Stage]:
    """Every stage that a recipe has, in order: dSFT, AI feedback, dDPO, and what it was good for.

    Raises:
        UserError: A template cannot be read, or a stage names another one that the recipe does not have.
    """
    recipe = recipe.model_copy(update={"chat": read_template(recipe.chat)})
    taught = recipe.dialogues.train == GENERATED
    made = supervised.generated(recipe, {}) if taught else []
    taught_by = supervised.supervised(recipe, next((each for each in made if each.kind == "generated_dialogues"), None))
    models = {stage.kind: stage for stage in taught_by if stage.makes_model}
    made_with = [] if taught else supervised.generated(recipe, models)
    found = [*made, *taught_by, *made_with, *_rounds(recipe, models)]
    if judged_by := feedback.judged_by_own_reward_model(recipe, found):
        found.append(judged_by)
    found += best_answers.learning(recipe, found, models)
    found += unpaired.learning(recipe, found, alignment.start_of(recipe, models))
    found += on_policy.learning(recipe, found, models)
    own = {stage.name: stage for stage in found if stage.makes_model}
    if alignment.starts_somewhere(recipe):  # a recipe may be for rows alone, or for endpoints that it evaluates
        given = recipe.model.path is not None
        on_the_way = {name: stage for name, stage in own.items() if not (given and name in models)}
        found += evaluation.by_functions(recipe, on_the_way, skip=given)
    return [*found, *evaluation.by_questions(recipe, own)]


def _rounds(recipe: Recipe, models: dict[str, Stage]) -> list[Stage]:
    """AI feedback and dDPO on it, once or more: each round goes on from the model that the one before trained.

    Args:
        recipe: The recipe.
        models: The stages that make models before it, by name.

    Raises:
        UserError: The recipe lacks what several rounds need.
    """
    check_rounds(recipe, alignment.policy_methods(recipe))
    asked, start = prompts.stage(recipe.prompts, recipe.run.seed), alignment.start_of(recipe, models)
    this, found = Round(1, start, start), [asked]
    for _ in range(recipe.rounds):
        made = feedback.feedback(recipe, this, asked, models)
        if start is not None:
            made += alignment.preference_optimisation(recipe, this, made, start)
            this = this.following({stage.kind: stage for stage in made}, start, recipe.each_round)
        found += made
    return found


def final_stages(recipe: Recipe) -> list[str]:
    """The stages that a pipeline ends with, by name: every method but SFT that the recipe has a section for, and ExPO;
    in later rounds the method that goes on."""
    goes_on = [recipe.each_round.method]
    if recipe.expo is not None and extrapolated.OF in goes_on:
        goes_on.append(extrapolated.KIND)
    beyond = [] if recipe.expo is None else [extrapolated.KIND]
    later = [folder_of(number, kind) for number in range(2, recipe.rounds + 1) for kind in goes_on]
    return [*alignment.final_methods(recipe, alignment.ALL_ROWS), *beyond, *later]


def evaluations(recipe: Recipe) -> list[str]:
    """The recipe's evaluations, by the names of the stages that hold their results.

    Raises:
        UserError: It has none.
    """
    found = [stage.name for stage in stages(recipe) if stage.is_evaluation]
    if not found:
        raise UserError("this recipe evaluates nothing; name models, a judge and mt_bench in its evaluation section")
    return found


def select(recipe: Recipe, targets: Sequence[str], evaluate: bool = False) -> list[Stage]:
    """The targets, by name, and all they read, in the pipeline's order.

    Args:
        recipe: The recipe.
        targets: Names of stages.
        evaluate: Add the recipe's evaluations.

    Raises:
        UserError: The recipe has no such stage, or the settings of one are wrong.
    """
    found = stages(recipe)
    names = {stage.name for stage in found}
    wanted = [*targets, *(stage.name for stage in found if evaluate and stage.is_evaluation)]
    for name in wanted:
        if name not in names and (lack := missing.lack_of(recipe, name)):
            raise UserError(f"this recipe has {lack}")
    selected = up_to(found, wanted)
    for stage in selected:
        stage.check()
    return selected


def those_it_has(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Those of some stages that the recipe has, by name. Raises as `stages`."""
    if not names:
        return []
    found = {stage.name for stage in stages(recipe)}
    return [name for name in names if name in found]


def plan(recipe: Recipe, targets: Sequence[str], evaluate: bool = False) -> runner.Plan:
    """What it takes to bring these stages, and all they read, up to date in the recipe's run. Arguments as `select`.

    Raises:
        UserError: What a person can mend.
    """
    run, selected = open_run(recipe), select(recipe, targets, evaluate)
    connect.check_root(recipe.run.root)
    return runner.plan(run, selected, loader.to_yaml(recipe), recipe.run.lease_s)


def open_run(recipe: Recipe) -> Run:
    """The recipe's run.

    Raises:
        UserError: The recipe does not say where it lies, or that place cannot be read.
    """
    if not recipe.run.root:
        raise UserError("run.root is not set; give the run a folder or a URI of its own: --set run.root=runs/NAME")
    run = Run(recipe.run.root)
    run.check_readable()
    return run


def run_pipeline(
    recipe: Recipe,
    until: str | None = None,
    *,
    screen: runner.Screen | None = None,
    consent: runner.Consent | None = None,
) -> Run:
    """Brings a pipeline's stages up to date in the recipe's run.

    Args:
        recipe: The experiment.
        until: The stage to stop after, by name, with all it reads. None: `final_stages`, and the recipe's evaluations.
        screen: Where a person sees how it gets on; None: lines on stdout.
        consent: What may be replaced. None: nothing.

    Raises:
        UserError: What a person can mend.
        KeyboardInterrupt: It was stopped; another call goes on from there.
    """
    from zephyr_ray.pipeline import screen as screens

    connect.set_environment()
    planned = plan(recipe, [until] if until else final_stages(recipe), evaluate=until is None)
    runner.bring_up_to_date(planned, screen or screens.on_stdout(), consent)
    write_report([planned.run.root])
    return planned.run


def write_report(roots: Sequence[str], out: str | None = None) -> str:
    """Writes the report of a run, or of several side by side, and returns where its page lies.

    Args:
        roots: Where the runs lie.
        out: The folder to write to. None: the root; of several, `comparison` in the first one.

    Raises:
        UserError: A root holds no run, or the folder cannot be written.
    """
    from zephyr_ray.reporting import run_report

    return run_report.write(roots, out, {root: _stages_of_run(root) for root in roots})


def _stages_of_run(root: str) -> list[str]:
    """The stages that a whole pipeline of the run's recipe makes, by name; none where this version cannot tell."""
    from zephyr_ray.reporting.settings import recipe_text

    try:
        recipe = recipe_type().model_validate(yaml.safe_load(recipe_text(Run(root))) or {})
        return [stage.name for stage in select(recipe, final_stages(recipe), evaluate=True)]
    except (ValidationError, yaml.YAMLError, UserError):  # of another version, or of stages that were made one by one
        return []
