"""Every stage: what it reads, and which part of the recipe it is made from. `makers` has how it is made.

A stage's fingerprint is a hash of its part of the recipe and of the fingerprints of what it reads. `jobs/pipeline.py`
and the other jobs bring their targets up to date: a finished stage with the same fingerprint is skipped, an unfinished
one resumes, a changed one is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray import makers
from zephyr_ray.artifacts import fingerprint
from zephyr_ray.errors import UserError
from zephyr_ray.inference.principles import PRINCIPLES
from zephyr_ray.makers import Context, Manifest
from zephyr_ray.recipe import Recipe
from zephyr_ray.recipe_feedback import OWN_MODELS, Deployment, Judging, Sampling
from zephyr_ray.section import semantic
from zephyr_ray.training.arithmetic import reference_arithmetic


@dataclass(frozen=True)
class Stage:
    name: str
    unit: str
    reads: Callable[[Recipe], tuple[str, ...]]
    """Stages whose artifacts it reads."""
    config: Callable[[Recipe], Any]
    """The semantic part of the recipe it is made from, as JSON values."""
    make: Callable[[Context], Manifest]
    """Makes the artifact and returns the manifest's own part: counts, files, what there is to tell."""
    external: Callable[[Recipe], dict[str, str]] = lambda recipe: {}
    """Fingerprints of files and models that come from outside of the run."""


def is_tiny(recipe: Recipe) -> bool:
    """Whether the model is made from scratch by the embedded world."""
    return recipe.model.path is None and recipe.sft is not None and recipe.sft.base == "tiny"


def in_order(recipe: Recipe, targets: Sequence[str]) -> list[Stage]:
    """The targets and everything they read, each after what it reads."""
    order: list[Stage] = []

    def visit(name: str) -> None:
        stage = STAGES[name]
        if stage in order:
            return
        for upstream in stage.reads(recipe):
            visit(upstream)
        order.append(stage)

    for target in targets:
        visit(target)
    return order


def fingerprints(recipe: Recipe, stages: Sequence[Stage]) -> dict[str, tuple[str, dict[str, str]]]:
    """The fingerprint of each stage and those of its inputs.

    Raises:
        UserError: An input from outside is missing or cannot be read.
    """
    known: dict[str, tuple[str, dict[str, str]]] = {}
    for stage in stages:
        inputs = {name: known[name][0] for name in stage.reads(recipe)} | stage.external(recipe)
        known[stage.name] = (fingerprint(stage.name, stage.config(recipe), inputs), inputs)
    return known


def _seed(recipe: Recipe) -> dict[str, Any]:
    return {"seed": recipe.run.seed}


def _tiny(recipe: Recipe, needed: bool) -> dict[str, Any]:
    return {"tiny": semantic(recipe.tiny) if needed else None}


def _model_config(recipe: Recipe) -> dict[str, Any]:
    return {"dtype": recipe.model.dtype, "lora": semantic(recipe.model.lora) if recipe.model.lora else None}


def _reads_sft(recipe: Recipe) -> tuple[str, ...]:
    return () if recipe.model.path is not None else ("sft",)


def _reads_base(recipe: Recipe) -> tuple[str, ...]:
    return ("base",) if is_tiny(recipe) else ()


def _external_model(recipe: Recipe) -> dict[str, str]:
    from zephyr_ray.models import external_fingerprint

    if recipe.model.path is None:
        return {}
    return {"model": external_fingerprint("model.path", recipe.model.path, recipe.model.revision)}


def _external_base(recipe: Recipe) -> dict[str, str]:
    from zephyr_ray.models import external_fingerprint

    if recipe.sft is None or recipe.sft.base == "tiny":
        return {}
    return {"base": external_fingerprint("sft.base", recipe.sft.base, recipe.sft.revision)}


def _external_preferences(recipe: Recipe) -> dict[str, str]:
    from zephyr_ray.data.decontaminate import describe_benchmarks
    from zephyr_ray.data.sources import describe_source

    section = recipe.preferences
    rows = {} if section.train in ("tiny", "judgments") else {"preferences": describe_source(section.train)}
    files = section.decontaminate
    return rows | ({"decontaminate": describe_benchmarks(files)} if files else {})


def _preferences_config(recipe: Recipe) -> dict[str, Any]:
    """Training pairs do not depend on held-out ones."""
    section = semantic(recipe.preferences)
    config = {name: value for name, value in section.items() if name not in ("held_out", "held_out_split")}
    return {"preferences": config} | _tiny(recipe, recipe.preferences.train == "tiny") | _seed(recipe)


def _held_out_config(recipe: Recipe) -> dict[str, Any]:
    """Of held-out pairs. Those that are trained on are among what they are made from."""
    section = semantic(recipe.preferences)
    config = {name: value for name, value in section.items() if name not in ("train", "split")}
    return {"preferences": config} | _tiny(recipe, _held_out(recipe) == "tiny") | _seed(recipe)


def _held_out(recipe: Recipe) -> str | tuple[str, ...]:
    if recipe.preferences.held_out is None:
        raise UserError("this recipe has no preferences.held_out; set it to pairs that are not trained on")
    return recipe.preferences.held_out


def _external_held_out(recipe: Recipe) -> dict[str, str]:
    from zephyr_ray.data.decontaminate import describe_benchmarks
    from zephyr_ray.data.sources import describe_source

    names, files = _held_out(recipe), recipe.preferences.decontaminate
    rows = {} if names == "tiny" else {"held_out": describe_source(names)}
    return rows | ({"decontaminate": describe_benchmarks(files)} if files else {})


def _external_prompts(recipe: Recipe) -> dict[str, str]:
    from zephyr_ray.data.sources import describe_source

    train = recipe.prompts.train
    return {} if train == "tiny" else {"prompts": describe_source(train)}


def _own_models(deployments: Sequence[Deployment]) -> tuple[str, ...]:
    """The stages of this run whose checkpoints are deployed."""
    return tuple(sorted({each.model for each in deployments if each.model in OWN_MODELS}))


def _external_deployments(field: str, deployments: Sequence[Deployment]) -> dict[str, str]:
    """Fingerprints of the models that are deployed and come from outside of the run."""
    from zephyr_ray.models import external_fingerprint

    return {
        each.name: external_fingerprint(f"{field}.deployments {each.name}", each.model, each.revision)
        for each in deployments
        if each.model not in OWN_MODELS
    }


def _sampling(recipe: Recipe) -> Sampling:
    if recipe.sampling is None:
        raise UserError("this recipe has no sampling section; add one with the models that answer the prompts")
    return recipe.sampling


def _candidates_config(recipe: Recipe) -> dict[str, Any]:
    section = _sampling(recipe)
    principles = PRINCIPLES if section.principles else None
    return {"sampling": semantic(section), "chat": semantic(recipe.chat), "principles": principles} | _seed(recipe)


def _judging(recipe: Recipe) -> Judging:
    if recipe.judging is None:
        raise UserError("this recipe has no judging section; add one with the judges of the answers")
    return recipe.judging


def _judgments_config(recipe: Recipe) -> dict[str, Any]:
    from zephyr_ray.judging.rubrics import rubric_fingerprint

    section = _judging(recipe)
    used = {
        "rubrics": rubric_fingerprint() if section.servers else None,
        "chat": semantic(recipe.chat) if section.reward_model or section.deployments else None,
    }
    return {"judging": semantic(section)} | used | _seed(recipe)


def _external_judges(recipe: Recipe) -> dict[str, str]:
    from zephyr_ray.models import reward_model_source

    section = _judging(recipe)
    found = _external_deployments("judging", section.deployments)
    if section.reward_model:
        found["reward_model"] = reward_model_source(section).fingerprint
    if section.function:
        from zephyr_ray.judging.program import program_fingerprint

        found["function"] = program_fingerprint(section.function)
    return found


def _is_judged(recipe: Recipe) -> bool:
    """Whether the preferences are made from this run's own judgments."""
    return recipe.preferences.train == "judgments"


def _external_dialogues(recipe: Recipe) -> dict[str, str]:
    from zephyr_ray.data.sources import describe_source

    train = recipe.dialogues.train
    return {} if train == "tiny" else {"dialogues": describe_source(train)}


def _sft_config(recipe: Recipe) -> dict[str, Any]:
    assert recipe.sft is not None
    return {"sft": semantic(recipe.sft), "model": _model_config(recipe), "chat": semantic(recipe.chat)} | _seed(recipe)


def _tokenized_config(recipe: Recipe) -> dict[str, Any]:
    # Pairs of zephyr_legacy were once cut as `modern` cuts them.
    legacy_cut = {"cut": "trl-0.7"} if recipe.chat.tokenization == "zephyr_legacy" else {}
    return {"chat": semantic(recipe.chat), "tokenized": semantic(recipe.tokenized)} | legacy_cut


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("base", "files", lambda r: (), lambda r: _tiny(r, True) | _seed(r), makers.base),
        Stage(
            "dialogues",
            "rows",
            lambda r: (),
            lambda r: {"dialogues": semantic(r.dialogues)} | _tiny(r, r.dialogues.train == "tiny") | _seed(r),
            makers.dialogues,
            _external_dialogues,
        ),
        Stage(
            "tokenized_dialogues",
            "rows",
            lambda r: ("dialogues", *_reads_base(r)),
            lambda r: {
                "chat": semantic(r.chat),
                "max_length": None if not r.sft or r.sft.packing else r.sft.max_length,
            },
            makers.tokenized_dialogues,
            _external_base,
        ),
        Stage(
            "sft",
            "steps",
            lambda r: ("tokenized_dialogues", *_reads_base(r)),
            _sft_config,
            makers.sft,
            _external_base,
        ),
        Stage(
            "prompts",
            "rows",
            lambda r: (),
            lambda r: {"prompts": semantic(r.prompts)} | _tiny(r, r.prompts.train == "tiny") | _seed(r),
            makers.prompts,
            _external_prompts,
        ),
        Stage(
            "candidates",
            "rows",
            lambda r: ("prompts", *_own_models(_sampling(r).deployments)),
            _candidates_config,
            makers.candidates,
            lambda r: _external_deployments("sampling", _sampling(r).deployments),
        ),
        Stage(
            "judgments",
            "rows",
            lambda r: ("candidates", *_own_models(_judging(r).deployments)),
            _judgments_config,
            makers.judgments,
            _external_judges,
        ),
        Stage(
            "preferences",
            "rows",
            lambda r: ("judgments",) if _is_judged(r) else (),
            _preferences_config,
            makers.preferences,
            _external_preferences,
        ),
        Stage(
            "tokenized",
            "pairs",
            lambda r: ("preferences", *_reads_sft(r)),
            _tokenized_config,
            makers.tokenized,
            _external_model,
        ),
        Stage(
            "reference_logps",
            "pairs",
            lambda r: ("tokenized", *_reads_sft(r)),
            lambda r: {
                "ld_alpha": r.dpo.training.trl.get("ld_alpha"),
                "arithmetic": reference_arithmetic(r),
                "load_in_4bit": bool(r.model.lora and r.model.lora.load_in_4bit),
            },
            makers.reference_logps,
            _external_model,
        ),
        Stage(
            "dpo",
            "steps",
            lambda r: ("tokenized", "reference_logps", *_reads_sft(r)),
            lambda r: {"dpo": semantic(r.dpo), "model": _model_config(r), "chat": semantic(r.chat)} | _seed(r),
            makers.dpo,
            _external_model,
        ),
        Stage(
            "held_out_pairs",
            "rows",
            lambda r: ("preferences",),
            _held_out_config,
            makers.held_out_pairs,
            _external_held_out,
        ),
        Stage(
            "held_out_tokenized",
            "pairs",
            lambda r: ("held_out_pairs", *_reads_sft(r)),
            _tokenized_config,
            makers.held_out_tokenized,
            _external_model,
        ),
        Stage(
            "held_out_reference",
            "pairs",
            lambda r: ("held_out_tokenized", *_reads_sft(r)),
            lambda r: {"arithmetic": reference_arithmetic(r)},
            makers.held_out_reference,
            _external_model,
        ),
        Stage(
            "held_out_policy",
            "pairs",
            lambda r: ("held_out_tokenized", "dpo"),
            lambda r: {"arithmetic": reference_arithmetic(r)},
            makers.held_out_policy,
        ),
        Stage(
            "evaluation/preferences",
            "pairs",
            lambda r: ("held_out_pairs", "held_out_tokenized", "held_out_reference", "held_out_policy"),
            lambda r: {"beta": r.dpo.beta} | _seed(r),
            makers.evaluation_preferences,
        ),
        Stage(
            "held_out",
            "answers",
            lambda r: ("base", "sft", "dpo"),
            lambda r: {"held_out": semantic(r.held_out) if r.held_out else None} | _tiny(r, True) | _seed(r),
            makers.held_out,
        ),
    )
}
