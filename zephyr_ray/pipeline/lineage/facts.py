"""What a run's manifests say of a stage and of the stages that it was made from, as values; and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.provenance import names_all_inputs

FILE = "lineage.json"
"""The lineage of a checkpoint, in its folder."""
_OF_THE_RUN = ("judgments", "generated")
"""What a recipe calls rows that the run itself makes."""


@dataclass(frozen=True)
class Input:
    """Something that a stage was made from."""

    name: str
    """Its name for the stage."""
    fingerprint: str
    stage: str | None = None
    """The folder of the run that has this fingerprint; None for what comes from outside, or is no longer there."""


@dataclass(frozen=True)
class UsedModel:
    """A model or a program that a stage asked or started from."""

    role: str
    """What it does there: `answers`, `judges`, `teaches`, `makes` a raw model, `measures` one, or is the `start` of a
    training."""
    kind: str
    """`endpoint`, `deployment`, `offline`, `function`, `reward_model`, or `checkpoint`."""
    model: str
    """A path, a hub id, a stage of the run, an endpoint's model, or a function."""
    name: str | None = None
    """In the pool."""
    commit: str | None = None
    adapter_of: str | None = None
    """The base model of a start that is an adapter."""


@dataclass(frozen=True)
class Counts:
    """What became of a stage's rows."""

    rows_in: int
    rows_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    added: int = 0
    """Rows beyond the first that a source row became."""


@dataclass(frozen=True)
class StageFacts:
    """An artifact of a run."""

    stage: str
    """Its folder in the run."""
    finished: bool
    fingerprint: str | None
    """None while an artifact is moved aside."""
    kind: str | None = None
    """The stage that made it, where the folder has another name because it was replaced."""
    is_model: bool = False
    is_evaluation: bool = False
    weights: str | None = None
    """The identity of a checkpoint's weights."""
    begun: str | None = None
    ended: str | None = None
    """Times (ISO 8601)."""
    seconds: float | None = None
    """Of the command that finished it."""
    seed: int | None = None
    inputs: tuple[Input, ...] = ()
    names_all_inputs: bool = True
    """False if an earlier version made it, which recorded some of them only."""
    counts: Counts | None = None
    data: tuple[str, ...] = ()
    """What the recipe names as its rows: paths, dataset ids, functions."""
    models: tuple[UsedModel, ...] = ()
    commits: Mapping[str, str] = field(default_factory=dict)
    """Of the hub's models and datasets, by id."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Of models and datasets, by path or id, where they say."""
    asked: Mapping[str, float] = field(default_factory=dict)
    """Replies, tokens and US dollars that models took."""
    code: str | None = None
    """The commit of zephyr_ray's code, if it ran from a checkout."""
    uncommitted: bool | None = None
    """Whether that checkout had changes beside the commit; None where that was not recorded."""
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Any = None
    """The settings that decide what it holds."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Of a training's last step."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """How many rows were trained on, and how often."""
    alarms: tuple[str, ...] = ()
    result: tuple[str, ...] = ()
    """An evaluation's lines for a person."""

    @property
    def served_as(self) -> str | None:
        """The fingerprint that answers carry when the checkpoint is served (`model_source.stage_source`)."""
        if not (self.is_model and self.fingerprint):
            return None
        return content_id(self.fingerprint, self.weights) if self.weights else self.fingerprint


@dataclass(frozen=True)
class Lineage:
    """Stages of a run, each after what it was made from."""

    root: str
    of: tuple[str, ...]
    """The stages whose lineage it is; empty: the whole run's, where no model is finished."""
    stages: tuple[StageFacts, ...]
    evaluations: tuple[StageFacts, ...] = ()
    """Finished evaluations of the models among them."""
    others: Mapping[str, bool] = field(default_factory=dict)
    """Further stages of the run by name: whether each is finished."""
    before: Mapping[str, Lineage] = field(default_factory=dict)
    """Lineages of models from other runs that trainings began with, by their paths."""

    def stage(self, name: str) -> StageFacts | None:
        return next((each for each in self.stages if each.stage == name), None)

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint that answers of the served checkpoint carry; None if it is not the lineage of one."""
        last = self.stage(self.of[0]) if len(self.of) == 1 else None
        return last.served_as if last else None


def facts(
    stage: str,
    record: Mapping[str, Any],
    *,
    finished: bool,
    holders: Mapping[str, str] | None = None,
    changed_at: str | None = None,
) -> StageFacts:
    """What a record of an artifact says.

    Args:
        stage: Its folder in the run.
        record: Its manifest, or what there is while it is made (`Artifact.record`). An earlier version's may lack
            anything.
        finished: Whether it is a manifest.
        holders: The run's artifacts by fingerprint, and by the identity of their weights.
        changed_at: When the record was written, for manifests that do not say.
    """
    config, environment = record.get("config"), dict(record.get("environment") or {})
    commits = record.get("commits") or {}
    return StageFacts(
        stage,
        finished,
        record.get("fingerprint"),
        kind=record.get("stage"),
        is_model="checkpoint" in record or _trains(stage, config),
        is_evaluation=is_evaluation(stage, config),
        weights=record.get("weights"),
        begun=record.get("begun"),
        ended=record.get("ended", changed_at) if finished else None,
        seconds=record.get("seconds"),
        seed=_seed(config),
        inputs=tuple(
            Input(name, found, (holders or {}).get(found))
            for name, found in sorted((record.get("inputs") or {}).items())
        ),
        names_all_inputs=names_all_inputs(record),
        counts=_counts(record.get("counts") or {}),
        data=tuple(named_data(config)),
        models=tuple(used_models(record)),
        commits=commits,
        licences=record.get("licences") or {},
        asked=record.get("asked") or {},
        code=environment.pop("commit", None),
        uncommitted=record.get("uncommitted"),
        versions=environment,
        config=config,
        metrics=record.get("metrics") or {},
        trained=record.get("trained") or {},
        alarms=tuple(record.get("alarms") or ()),
        result=tuple(record.get("lines") or ()) if is_evaluation(stage, config) else (),
    )


def is_evaluation(stage: str, config: Any) -> bool:
    """Whether a stage measures a model, by its place or its settings."""
    return "evaluation" in stage.split("/") or (isinstance(config, Mapping) and "evaluation" in config)


def named_data(config: Any) -> list[str]:
    """The paths, dataset ids and functions that a stage's settings name as its rows."""
    if not isinstance(config, Mapping):
        return []
    sections = [section for section in config.values() if isinstance(section, Mapping)]
    named = [section[name] for section in sections for name in ("train", "held_out", "seeds") if section.get(name)]
    given = [each for value in named for each in (value if isinstance(value, list) else [value])]
    return [_named(each) for each in given if each not in _OF_THE_RUN]


def used_models(record: Mapping[str, Any]) -> list[UsedModel]:
    """The models and programs that a stage asked, and the model that a training began with."""
    config, commits = record.get("config"), record.get("commits") or {}
    if not isinstance(config, Mapping):
        return []
    found = [_member("answers", each, commits) for each in _section(config, "sampling").get("pool") or ()]
    found += [_member("teaches", each, commits) for each in _section(config, "generation").get("pool") or ()]
    judge = _section(_section(config, "judging"), "judge")
    if judge:
        found += [_member("judges", each, commits) for each in judge.get("models") or [judge]]
    for role, section in (("makes", "base"), ("measures", "evaluation")):
        if function := _section(config, section).get("function"):
            found.append(UsedModel(role, "function", function))
    start = _section(record, "model")
    if start.get("path"):
        commit = start.get("revision") or commits.get(start["path"])
        adapter_of = start.get("adapter_of")
        found.append(UsedModel("start", "checkpoint", start["path"], commit=commit, adapter_of=adapter_of))
    return found


def is_replaced(stage: str) -> bool:
    """Whether a folder holds an artifact that was made anew (`move_aside`)."""
    return ".replaced-" in stage


def as_json(lineage: Lineage) -> dict[str, Any]:
    """The lineage as JSON values. `stages` and `evaluations` have a field for each of `StageFacts`."""
    return {
        "root": lineage.root,
        "of": list(lineage.of),
        "fingerprint": lineage.fingerprint,
        "stages": [{**asdict(each), "served_as": each.served_as} for each in lineage.stages],
        "evaluations": [asdict(each) for each in lineage.evaluations],
        "others": dict(lineage.others),
        "before": {path: as_json(each) for path, each in lineage.before.items()},
    }


def from_json(value: Mapping[str, Any]) -> Lineage:
    """What `as_json` returned.

    Raises:
        KeyError, TypeError: It is something else.
    """
    return Lineage(
        value["root"],
        tuple(value["of"]),
        tuple(_stage(each) for each in value["stages"]),
        tuple(_stage(each) for each in value["evaluations"]),
        value["others"],
        {path: from_json(each) for path, each in value["before"].items()},
    )


def _stage(value: Mapping[str, Any]) -> StageFacts:
    plain = {name: each for name, each in value.items() if name != "served_as"}
    return StageFacts(
        **plain
        | {
            "inputs": tuple(Input(**each) for each in value["inputs"]),
            "models": tuple(UsedModel(**each) for each in value["models"]),
            "counts": Counts(**value["counts"]) if value["counts"] else None,
            **{name: tuple(value[name]) for name in ("data", "alarms", "result")},
        }
    )


def _trains(stage: str, config: Any) -> bool:
    """Whether a stage that may have no manifest yet trains a model: its settings have its own section and a model's."""
    return isinstance(config, Mapping) and stage.rpartition("/")[2].partition(".")[0] in config and "model" in config


def _seed(config: Any) -> int | None:
    seed = config.get("seed") if isinstance(config, Mapping) else None
    return seed if isinstance(seed, int) else None


def _counts(counts: Mapping[str, Any]) -> Counts | None:
    """What a manifest counts; a user's evaluation may count nothing, or otherwise."""
    if not {"in", "out"} <= {*counts}:
        return None
    return Counts(counts["in"], counts["out"], counts.get("dropped") or {}, counts.get("added", 0))


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return section if isinstance(section, Mapping) else {}


def _named(source: Any) -> str:
    """A source of rows as a person reads it: a function with its options, or a path or id."""
    if not isinstance(source, Mapping):
        return str(source)
    options = ", ".join(f"{name}={value}" for name, value in (source.get("options") or {}).items())
    return f"{source.get('function')}({options})"


def _member(role: str, member: Mapping[str, Any], commits: Mapping[str, str]) -> UsedModel:
    delta = f"{member['chosen']} over {member['rejected']}" if member.get("type") == "delta" else None
    model = str(member.get("model") or member.get("function") or delta)
    engine = _section(member, "engine")
    commit = commits.get(model) or member.get("revision") or engine.get("revision")
    return UsedModel(role, str(member.get("type", "function")), model, member.get("name"), commit)
