"""The way Zephyr was made (arXiv 2310.16944) as a list of stages, in order, and a function that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import yaml
from pydantic import ValidationError

from zephyr_ray.chat_template import read_template
from zephyr_ray.cluster import connect
from zephyr_ray.config import loader
from zephyr_ray.config.feedback import OWN_MODELS, RewardModelJudge
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
    held_out_rewards,
    judgments,
    preferences,
    prompts,
    reference_logps,
    replayed_preferences,
    round_prompts,
    selected_dialogues,
    tokenized,
    tokenized_dialogues,
    tokenized_groups,
)
from zephyr_ray.data.diversity import stage as diversity
from zephyr_ray.data.io.sources import GENERATED, OF_THE_RUN
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import function_stage, preferences_stage, reward_stage
from zephyr_ray.evaluation.judge_agreement import stages as judge_agreement
from zephyr_ray.evaluation.questions import stages as questions
from zephyr_ray.pipeline import runner
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.model_source import ModelInput
from zephyr_ray.pipeline.rounds import Round, check_rounds, in_folder
from zephyr_ray.pipeline.stage import Stage, folder_of, up_to
from zephyr_ray.training import base_model, extrapolated
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
    found = [*made, *supervised, *made_with, *_rounds(recipe, models)]
    own = {stage.name: stage for stage in found if stage.makes_model}
    if _starts_somewhere(recipe):  # a recipe may be for rows alone, or for endpoints that it evaluates
        given = recipe.model.path is not None
        on_the_way = {name: stage for name, stage in own.items() if not (given and name in models)}
        found += _evaluations(recipe, on_the_way, skip=given)
    if judged_by := _judged_by_own_reward_model(recipe, found):
        found.append(judged_by)
    return [*found, *_questions(recipe, own)]


def _rounds(recipe: Recipe, models: dict[str, Stage]) -> list[Stage]:
    """AI feedback and dDPO on it, once or more: each round goes on from the model that the one before trained.

    Args:
        recipe: The recipe.
        models: The stages that make models before it, by name.

    Raises:
        UserError: The recipe lacks what several rounds need.
    """
    check_rounds(recipe, final_methods(recipe))
    asked, start = prompts.stage(recipe.prompts, recipe.run.seed), _start(recipe, models)
    this, found = Round(1, start, start), [asked]
    for _ in range(recipe.rounds):
        made = _feedback(recipe, this, asked, models)
        if start is not None:
            made += _preference_optimisation(recipe, this, made, start)
            this = this.following({stage.kind: stage for stage in made}, start, recipe.each_round)
        found += made
    return found


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


def _start(recipe: Recipe, models: dict[str, Stage]) -> ModelInput | None:
    """The model that learns from preferences; None where the recipe has none."""
    if not _starts_somewhere(recipe):
        return None
    given = recipe.model
    own = None if given.path else models["sft"]
    return ModelInput("model", "model.path", given.path, given.revision, own)


def _feedback(recipe: Recipe, this: Round, asked: Stage, models: dict[str, Stage]) -> list[Stage]:
    """AI feedback: several answers to each prompt, ratings of them, and pairs: the best is y_w, a lower one y_l. The
    last stage is what is trained on."""
    seed, judged, own = this.seed(recipe.run.seed), None, this.own_models(models)
    made = []
    if recipe.rounds > 1 and recipe.each_round.prompts == "share":
        asked = this.put(round_prompts.stage(recipe.run.seed, asked, this.number, recipe.rounds))
        made.append(asked)
    if recipe.sampling is not None:
        answered = this.put(candidates.stage(this.sampling(recipe.sampling), recipe.chat, seed, asked, own))
        made.append(answered)
        if recipe.judging is not None and not _names_own_reward_model(recipe):
            judged = this.put(judgments.stage(this.judging(recipe.judging), recipe.chat, seed, answered, own))
            made.append(judged)
    completions = recipe.sampling.completions if recipe.sampling else None
    made.append(this.put(preferences.stage(recipe.preferences, seed, judged, completions)))
    if this.pairs and recipe.each_round.replay:
        made.append(this.put(replayed_preferences.stage(recipe.each_round.replay, seed, made[-1], this.pairs)))
    return made


def _names_own_reward_model(recipe: Recipe) -> bool:
    """Whether the judge is a reward model that the run trains: its ratings come after the pairs that it learns from.

    Raises:
        UserError: It would learn from its own ratings.
    """
    judge = recipe.judging.judge if recipe.judging else None
    if not (isinstance(judge, RewardModelJudge) and judge.model in _reward_methods()):
        return False
    if recipe.preferences.train == OF_THE_RUN:
        raise UserError(
            f"judging.judge.model={judge.model} of this run learns from the judgments that it would make; name another "
            "judge, or pairs in preferences.train"
        )
    return True


def _judged_by_own_reward_model(recipe: Recipe, made: Sequence[Stage]) -> Stage | None:
    """The stage `judgments` where the judge is a reward model that this run trains, which comes after all of them.

    Raises:
        UserError: The recipe has no such stage.
    """
    if recipe.judging is None or recipe.sampling is None or not _names_own_reward_model(recipe):
        return None
    by_name = {stage.kind: stage for stage in made}
    return judgments.stage(recipe.judging, recipe.chat, recipe.run.seed, by_name["candidates"], by_name)


def _reward_methods() -> list[str]:
    """The methods that train a reward model, by name."""
    return [name for name, method in methods().items() if method.makes_reward_model]


def _preference_optimisation(recipe: Recipe, this: Round, feedback: list[Stage], start: ModelInput) -> list[Stage]:
    """dDPO from the newest model, and how it does on pairs that it was not trained on.

    Args:
        recipe: The recipe.
        this: The round.
        feedback: Its stages of AI feedback.
        start: The model that the first round starts from, whose tokenizer is that of all.
    """
    section = recipe.preferences
    assert this.policy is not None
    assert this.reference is not None
    rows = this.put(tokenized.stage(recipe.tokenized, feedback[-1], start, recipe.chat, section.max_dropped))
    as_policy = scoring(recipe.model, recipe.dpo.training)
    grouped = [each for each in _trainings(recipe, "pairs") if each.grouped]
    laid_out = [rows, this.put(tokenized_groups.stage(rows))] if grouped else [rows]
    score = partial(reference_logps.stage, recipe.reference_logps, as_policy, recipe.chat)
    logps = this.put(score(laid_out[-1], this.reference, partial(_check_groups, grouped) if grouped else None))
    policies = _policies(recipe, this, laid_out, logps)
    rewards = _reward_models(recipe, this, rows, feedback[-1])
    made = [*laid_out, logps, *policies.values(), *rewards]
    if recipe.expo is not None and (aligned := policies.get(extrapolated.OF)):
        policies[extrapolated.KIND] = this.put(extrapolated.stage(recipe.expo, this.policy, aligned))
        made.append(policies[extrapolated.KIND])
    if section.held_out is None:
        return made
    pairs = next(stage for stage in feedback if stage.kind == "preferences")
    made = _with_held_out_pairs(recipe, this, made, policies, pairs, start)
    held_out = next(stage for stage in made if stage.kind == "held_out_pairs")
    return [*made, *_held_out_rewards(recipe, this, rewards, held_out)]


def _reward_models(recipe: Recipe, this: Round, rows: Stage, pairs: Stage) -> list[Stage]:
    """The stages that train a reward model on the first round's pairs, from the model that the policies start from."""
    assert this.policy is not None
    found = []
    for settings in _trainings(recipe, "pairs") if this.number == 1 else ():
        method = method_of(settings.method)
        if method.makes_reward_model:
            scored = pairs if method.reads_scores(settings.section) else None
            found.append(training.stage(settings, this.policy, rows, preferences=scored))
    return found


def _held_out_rewards(recipe: Recipe, this: Round, models: Sequence[Stage], pairs: Stage) -> list[Stage]:
    """How reward models do on the held-out pairs."""
    found = []
    for model in models:
        trained = ModelInput("model", "model.path", stage=model)
        rewards = this.put(held_out_rewards.stage(model.kind, recipe.reference_logps, pairs, trained))
        found += [rewards, this.put(reward_stage.stage(model.kind, recipe.run.seed, pairs, rewards))]
    return found


def _check_groups(grouped: Sequence[TrainingSettings]) -> None:
    for each in grouped:
        groups = method_of(each.method).groups
        assert groups is not None
        groups.check(each.section)


def _policies(recipe: Recipe, this: Round, rows: Sequence[Stage], logps: Stage) -> dict[str, Stage]:
    """The stages that train on pairs, by method: all start from the same model, and those with a reference meet it.

    Args:
        recipe: The recipe.
        this: The round.
        rows: The pairs, and behind them their groups, if the recipe makes such.
        logps: The reference's log-probs of the last of them.

    Raises:
        UserError: One of them computes otherwise than DPO, as which the reference is scored, or other rows.
    """
    assert this.policy is not None
    found = {}
    for each in _trainings(recipe, "pairs"):
        if this.number > 1 and each.method != recipe.each_round.method:
            continue  # one method goes on
        is_reference = this.policy is this.reference
        settings = replace(each, seed=this.seed(each.seed), starts_as_reference=is_reference)
        name, meets = settings.method, method_of(settings.method).meets_a_reference
        if method_of(name).makes_reward_model:
            continue
        read = rows[-1 if settings.grouped else 0]
        found[name] = this.put(training.stage(settings, this.policy, read, logps if meets else None))
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


def final_methods(recipe: Recipe) -> list[str]:
    """The methods on pairs that the recipe has a section for, by name."""
    return [settings.method for settings in _trainings(recipe, "pairs")]


def final_stages(recipe: Recipe) -> list[str]:
    """The stages that a pipeline ends with, by name: every method on pairs that the recipe has a section for, and ExPO;
    in later rounds the method that goes on."""
    goes_on = [recipe.each_round.method]
    if recipe.expo is not None and extrapolated.OF in goes_on:
        goes_on.append(extrapolated.KIND)
    beyond = [] if recipe.expo is None else [extrapolated.KIND]
    later = [folder_of(number, kind) for number in range(2, recipe.rounds + 1) for kind in goes_on]
    return [*final_methods(recipe), *beyond, *later]


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


def _questions(recipe: Recipe, models: dict[str, Stage]) -> list[Stage]:
    """The evaluations that ask models questions, and a judge about their answers."""
    for each in recipe.evaluation.deployments:
        if each.model in _reward_methods():
            raise UserError(f"evaluation {each.name}: model={each.model} is a reward model, which answers nobody")
    asked = {each.model for each in recipe.evaluation.deployments}
    known = {*methods(), extrapolated.KIND}
    names = {"base", *known, *(name for name in asked if in_folder(name)[1] in known)}
    found = questions.stages(recipe.evaluation, recipe.run.seed, models, names)
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
    recipe: Recipe, this: Round, training: list[Stage], policies: Mapping[str, Stage], pairs: Stage, start: ModelInput
) -> list[Stage]:
    """The stages of training, and beside them those of held-out pairs: read before anything is trained."""
    rows, *before = [each for each in training if not each.makes_model]
    trained = [each for each in training if each.makes_model]
    section, seed = recipe.preferences, recipe.run.seed
    others = this.put(held_out_pairs.stage(section, seed, pairs, this.pairs))
    kind = "held_out_tokenized"
    encoded = this.put(tokenized.stage(recipe.tokenized, others, start, recipe.chat, section.max_dropped, kind))
    score = partial(
        reference_logps.held_out_stage,
        section=recipe.reference_logps,
        scoring=scoring(recipe.model, recipe.dpo.training),
        chat=recipe.chat,
        tokenized=encoded,
    )
    assert this.reference is not None
    reference = this.put(score("held_out_reference", model=this.reference, whose="ref"))
    made = [others, rows, encoded, *before, reference, *trained]
    for name, (aligned, beta) in _held_out_policies(recipe, this, policies).items():
        of = None if name == _WITHOUT_A_SUFFIX else name
        scored = this.put(
            score(
                f"held_out_policies/{of}" if of else "held_out_policy",
                model=aligned,
                whose="policy",
                tokenized_by=None if aligned.stage else start,
            )
        )
        made += [scored, this.put(preferences_stage.stage(beta, seed, others, encoded, reference, scored, of))]
    return made


def _held_out_policies(
    recipe: Recipe, this: Round, policies: Mapping[str, Stage]
) -> dict[str, tuple[ModelInput, float]]:
    """The models whose implicit reward is evaluated, by name, each with the beta of the reward: its method's own, where
    that meets a reference, else DPO's. Those from outside are evaluated once, with the first round's.

    Raises:
        UserError: A model from outside has the name of a method.
    """
    found = {}
    for name, policy in policies.items():
        method = methods().get(name)
        own = getattr(recipe, name).beta if method and method.meets_a_reference else recipe.dpo.beta
        found[name] = (ModelInput("model", "model.path", stage=policy), float(own))
    for each in recipe.evaluation.held_out_models if this.number == 1 else ():
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
    number, name = in_folder(name)
    if number > recipe.rounds:
        return f"rounds={recipe.rounds}, and no round {number}; set rounds={number}"
    if number > 1 and name in final_methods(recipe) and name != recipe.each_round.method:
        return f"each_round.method={recipe.each_round.method}, which trains in round {number}, and not {name}"
    is_of_pairs = name in ("tokenized", "reference_logps") or name in final_stages(recipe)
    if is_of_pairs and not _starts_somewhere(recipe):
        return "no model to start from: set model.path, or give it an sft section"
    if method := methods().get(name):
        if getattr(recipe, name, None) is not None:
            return f"no sft section, whose base and dialogues {name} starts from; add one"
        way_out = ", or start from a model: --set model.path=DIR_OR_HUB_ID" if method.rows == "dialogues" else ""
        return f"no {name} section; add one{way_out}"
    if name == extrapolated.KIND:
        return "no expo section; add one with its alpha"
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
