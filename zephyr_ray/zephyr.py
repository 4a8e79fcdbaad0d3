"""The way Zephyr was made (arXiv 2310.16944) as a list of stages, in order, and a function that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import yaml
from pydantic import ValidationError

from zephyr_ray.chat_template import read_template
from zephyr_ray.cluster import connect
from zephyr_ray.config import loader
from zephyr_ray.config.feedback import OWN_MODELS
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.section import Function
from zephyr_ray.config.training import SFT
from zephyr_ray.data import (
    candidates,
    dialogue_candidates,
    dialogues,
    embeddings,
    generated_dialogues,
    held_out_dialogues,
    held_out_pairs,
    judgments,
    preferences,
    prompts,
    reference_logps,
    selected_dialogues,
    tokenized,
    tokenized_dialogues,
    tokenized_groups,
)
from zephyr_ray.data.diversity import stage as diversity
from zephyr_ray.data.io.sources import GENERATED
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import function_stage, preferences_stage
from zephyr_ray.evaluation.judge_agreement import stages as judge_agreement
from zephyr_ray.evaluation.questions import stages as questions
from zephyr_ray.pipeline import runner
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.stage import Stage, up_to
from zephyr_ray.training import base_model
from zephyr_ray.training import stage as training
from zephyr_ray.training.arithmetic import scoring
from zephyr_ray.training.methods import method_of, methods, recipe_type
from zephyr_ray.training.settings import TrainingSettings

_WITHOUT_A_SUFFIX = "dpo"
"""The method whose held-out stages do not have its name: the pipeline's own."""


def stages(recipe: Recipe) -> list[Stage]:
    """Every stage that a recipe has, in order: dSFT, AI feedback, dDPO, and what it was good for.

    Raises:
        UserError: A template cannot be read, or a stage names another one that the recipe does not have.
    """
    recipe = recipe.model_copy(update={"chat": read_template(recipe.chat)})
    taught = recipe.dialogues.train == GENERATED
    made = _generation(recipe, {}) if taught else []
    supervised = _supervised(recipe, next((each for each in made if each.kind == "generated_dialogues"), None))
    models = {stage.kind: stage for stage in supervised if stage.makes_model}
    made_with = [] if taught else _generation(recipe, models)
    feedback = _feedback(recipe, models)
    found = [*made, *supervised, *made_with, *feedback]
    if _starts_somewhere(recipe):  # a recipe may be for rows alone, or for endpoints that it evaluates
        found += _preference_optimisation(recipe, models, {each.kind: each for each in feedback})
    return [*found, *_questions(recipe, found)]


def _starts_somewhere(recipe: Recipe) -> bool:
    """Whether there is a model that learns from preferences."""
    return recipe.model.path is not None or recipe.sft is not None


def _generation(recipe: Recipe, models: dict[str, Stage]) -> list[Stage]:
    """Dialogues that teachers make, and how different they are; a model of this run may teach only what it does not
    learn from.

    Raises:
        UserError: A teacher is such a model.
    """
    section = recipe.generation
    if section is None:
        return []
    if recipe.dialogues.train == GENERATED:
        own = next((each for each in section.deployments if each.model in OWN_MODELS), None)
        if own is not None:
            raise UserError(
                f"generation.pool {own.name}: model={own.model} of this run learns from the dialogues that it would "
                "make; name another model"
            )
    made = generated_dialogues.stages(section, recipe.run.seed, models)
    embedded = (
        [] if recipe.embeddings is None else [embeddings.stage(recipe.embeddings, made[-1], "generated_embeddings")]
    )
    return [*made, *embedded, diversity.stage(recipe.run.seed, made[-1], *embedded)]


def _supervised(recipe: Recipe, generated: Stage | None) -> list[Stage]:
    """dSFT: a raw model learns from what a teacher demonstrated."""
    seed, section = recipe.run.seed, recipe.sft
    cleaned = dialogues.stage(recipe.dialogues, seed, generated)
    selection = _selection(recipe, cleaned)
    demonstrations = [cleaned, *selection][-1]
    if section is None:
        return [cleaned, *selection]
    made, raw = _raw_model(section, seed)
    length = None if section.packing_strategy == "wrapped" else section.max_length
    tokenize = partial(
        tokenized_dialogues.stage,
        base=raw,
        chat=recipe.chat,
        max_length=length,
        max_dropped=recipe.dialogues.max_dropped,
    )
    rows, held_out = [tokenize(demonstrations)], None
    if recipe.dialogues.held_out is not None:
        others = held_out_dialogues.stage(recipe.dialogues, seed, cleaned)
        held_out = tokenize(others, kind="held_out_tokenized_dialogues")
        rows += [others, held_out]
    trained = [
        training.stage(settings, raw, rows[0], held_out=held_out if method_of(settings.method).eval_steps else None)
        for settings in _trainings(recipe, "dialogues")
    ]
    return [*made, cleaned, *selection, *rows, *trained]


def _selection(recipe: Recipe, cleaned: Stage) -> list[Stage]:
    """Some of the dialogues that cleaning left, the last stage; none where the recipe chooses none.

    Raises:
        UserError: The recipe does not say what they are to be embedded or rated by.
    """
    section, seed = recipe.dialogues.select, recipe.run.seed
    if section is None:
        return []
    vectors = judged = None
    made = []
    if embedded_by := selected_dialogues.embeddings_of(section, recipe.embeddings):
        vectors = embeddings.stage(embedded_by, cleaned)
        made.append(vectors)
    if judged_by := selected_dialogues.judging_of(section, recipe.judging):
        answers = dialogue_candidates.stage(cleaned)
        judged = judgments.stage(judged_by, recipe.chat, seed, answers, {}, "dialogue_judgments")
        made += [answers, judged]
    return [*made, selected_dialogues.stage(section, seed, cleaned, vectors, judged, judged_by)]


def _raw_model(section: SFT, seed: int) -> tuple[list[Stage], ModelInput]:
    """The stage that makes it, where one does, and the model."""
    if isinstance(section.base, Function):
        made = base_model.stage("sft.base", section.base, seed)
        return [made], ModelInput("base", "sft.base", stage=made)
    return [], ModelInput("base", "sft.base", section.base, section.revision)


def _feedback(recipe: Recipe, models: dict[str, Stage]) -> list[Stage]:
    """AI feedback: several answers to each prompt, ratings of them, and pairs: the best is y_w, a lower one y_l."""
    seed, judged = recipe.run.seed, None
    made = [prompts.stage(recipe.prompts, seed)]
    if recipe.sampling is not None:
        made.append(candidates.stage(recipe.sampling, recipe.chat, seed, made[-1], models))
        if recipe.judging is not None:
            judged = judgments.stage(recipe.judging, recipe.chat, seed, made[-1], models)
            made.append(judged)
    return [*made, preferences.stage(recipe.preferences, seed, judged)]


def _preference_optimisation(recipe: Recipe, models: dict[str, Stage], feedback: dict[str, Stage]) -> list[Stage]:
    """dDPO from the supervised model, and how it does on pairs that it was not trained on."""
    section, given = recipe.preferences, recipe.model
    own = None if given.path else models["sft"]
    start = ModelInput("model", "model.path", given.path, given.revision, own)
    pairs = feedback["preferences"]
    rows = tokenized.stage(recipe.tokenized, pairs, start, recipe.chat, section.max_dropped)
    grouped = [each for each in _trainings(recipe, "pairs") if each.grouped]
    laid_out = [rows, tokenized_groups.stage(rows)] if grouped else [rows]
    check = partial(_check_groups, grouped) if grouped else None
    as_policy = scoring(given, recipe.dpo.training)
    logps = reference_logps.stage(recipe.reference_logps, as_policy, recipe.chat, laid_out[-1], start, check)
    policies = _policies(recipe, start, laid_out, logps)
    made = [*laid_out, logps, *policies.values()]
    if section.held_out is not None:
        made = _with_held_out_pairs(recipe, made, policies, pairs, start)
    trained = policies if own is None else models | policies
    return [*made, *_evaluations(recipe, trained, skip=own is None)]


def _check_groups(grouped: Sequence[TrainingSettings]) -> None:
    for each in grouped:
        groups = method_of(each.method).groups
        assert groups is not None
        groups.check(each.section)


def _policies(recipe: Recipe, start: ModelInput, rows: Sequence[Stage], logps: Stage) -> dict[str, Stage]:
    """The stages that train on pairs, by name: all start from the same model, and those with a reference meet it.

    Args:
        recipe: The recipe.
        start: The model.
        rows: The pairs, and behind them their groups, if the recipe makes such.
        logps: The reference's log-probs of the last of them.

    Raises:
        UserError: One of them computes otherwise than DPO, as which the reference is scored, or other rows.
    """
    found = {}
    for settings in _trainings(recipe, "pairs"):
        name, meets = settings.method, method_of(settings.method).meets_a_reference
        found[name] = training.stage(settings, start, rows[-1 if settings.grouped else 0], logps if meets else None)
        if meets and len(rows) > 1 and not settings.grouped:
            raise UserError(
                f"{name} learns pair by pair from a reference, and with preferences.rejected=every_pair the reference "
                "is that of whole groups; set preferences.rejected to random_lower or lowest"
            )
        scored = reference_logps.settings(recipe.reference_logps, scoring(recipe.model, settings.section.training))
        if meets and scored != logps.config:
            raise UserError(f"{name}.training computes log-probs otherwise than dpo.training, whose reference it meets")
    return found


def _trainings(recipe: Recipe, rows: str) -> list[TrainingSettings]:
    """What the methods on such rows are made from, as far as the recipe has a section for them."""
    given = {name: getattr(recipe, name, None) for name, method in methods().items() if method.rows == rows}
    every_pair = rows == "pairs" and recipe.preferences.rejected == "every_pair"
    return [
        TrainingSettings(
            name,
            section,
            recipe.model,
            recipe.chat,
            recipe.run.seed,
            grouped=every_pair and method_of(name).groups is not None,
        )
        for name, section in given.items()
        if section is not None
    ]


def final_stages(recipe: Recipe) -> list[str]:
    """The stages that a pipeline ends with, by name: every method on pairs that the recipe has a section for."""
    return [settings.method for settings in _trainings(recipe, "pairs")]


def _evaluations(recipe: Recipe, models: dict[str, Stage], skip: bool) -> list[Stage]:
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


def _questions(recipe: Recipe, made: Sequence[Stage]) -> list[Stage]:
    """The evaluations that ask models questions, and a judge about their answers."""
    models = {stage.kind: stage for stage in made if stage.makes_model}
    found = questions.stages(recipe.evaluation, recipe.run.seed, models, {"base", *methods()})
    if recipe.evaluation.judge_agreement is not None:
        labelled = recipe.evaluation.judge_agreement
        found += judge_agreement.stages(labelled, recipe.judging, recipe.chat, recipe.run.seed, models)
    return found


def evaluations(recipe: Recipe) -> list[str]:
    """The recipe's evaluations, by the names of the stages that hold their results.

    Raises:
        UserError: It has none.
    """
    found = [stage.name for stage in stages(recipe) if stage.is_evaluation]
    if not found:
        raise UserError("this recipe evaluates nothing; name models, a judge and mt_bench in its evaluation section")
    return found


def _with_held_out_pairs(
    recipe: Recipe, training: list[Stage], policies: Mapping[str, Stage], pairs: Stage, start: ModelInput
) -> list[Stage]:
    """The stages of training, and beside them those of held-out pairs: read before anything is trained."""
    rows, *before = [each for each in training if not each.makes_model]
    trained = [each for each in training if each.makes_model]
    section, seed = recipe.preferences, recipe.run.seed
    others = held_out_pairs.stage(section, seed, pairs)
    kind = "held_out_tokenized"
    encoded = tokenized.stage(recipe.tokenized, others, start, recipe.chat, section.max_dropped, kind)
    score = partial(
        reference_logps.held_out_stage,
        section=recipe.reference_logps,
        scoring=scoring(recipe.model, recipe.dpo.training),
        chat=recipe.chat,
        tokenized=encoded,
    )
    reference = score("held_out_reference", model=start, whose="ref")
    made = [others, rows, encoded, *before, reference, *trained]
    for name, (aligned, beta) in _held_out_policies(recipe, policies).items():
        of = None if name == _WITHOUT_A_SUFFIX else name
        scored = score(
            f"held_out_policies/{of}" if of else "held_out_policy",
            model=aligned,
            whose="policy",
            tokenized_by=None if aligned.stage else start,
        )
        made += [scored, preferences_stage.stage(beta, seed, others, encoded, reference, scored, of)]
    return made


def _held_out_policies(recipe: Recipe, policies: Mapping[str, Stage]) -> dict[str, tuple[ModelInput, float]]:
    """The models whose implicit reward is evaluated, by name, each with the beta of the reward: its method's own, where
    that meets a reference, else DPO's.

    Raises:
        UserError: A model from outside has the name of a method.
    """
    found = {}
    for name, policy in policies.items():
        own = getattr(recipe, name).beta if method_of(name).meets_a_reference else recipe.dpo.beta
        found[name] = (ModelInput("model", "model.path", stage=policy), float(own))
    for each in recipe.evaluation.held_out_models:
        if each.name in found:
            raise UserError(f"evaluation.held_out_models {each.name}: this run trains a model of that name; rename it")
        field = f"evaluation.held_out_models {each.name}"
        found[each.name] = (ModelInput("model", field, each.model, each.revision), recipe.dpo.beta)
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
        if name not in names and (lack := _lack(recipe, name)):
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


def _lack(recipe: Recipe, name: str) -> str | None:
    """What a recipe lacks that has no such stage."""
    is_of_pairs = name in ("tokenized", "reference_logps") or name in final_stages(recipe)
    if is_of_pairs and not _starts_somewhere(recipe):
        return "no model to start from: set model.path, or give it an sft section"
    if method := methods().get(name):
        if getattr(recipe, name, None) is not None:
            return f"no sft section, whose base and dialogues {name} starts from; add one"
        way_out = ", or start from a model: --set model.path=DIR_OR_HUB_ID" if method.rows == "dialogues" else ""
        return f"no {name} section; add one{way_out}"
    if name in ("generated_dialogues", "seeds", "diversity"):
        return "no generation section; add one with the teachers and how they make dialogues"
    if name == "selected_dialogues":
        return "no dialogues.select; say how many dialogues are chosen, and by what"
    if name == "judgments" and recipe.judging is None:
        return "no judging section; add one with the judges of the answers"
    if name in ("candidates", "judgments"):
        return "no sampling section; add one with the models that answer the prompts"
    if name in ("held_out_dialogues", "held_out_tokenized_dialogues"):
        return "no dialogues.held_out; set it to dialogues that are not trained on"
    if name.startswith(("evaluation/preferences", "held_out_")):
        return "no preferences.held_out; set it to pairs that are not trained on"
    return None


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
