"""Lineage for a person: a tree of stages, and what each was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zephyr_ray.pipeline.lineage.facts import Counts, Input, Lineage, StageFacts, UsedModel

_SHORT = 12
"""Digits of a fingerprint that is shown, enough for `--fingerprint`."""
_DOES = {
    "answers": "answered by",
    "judges": "judged by",
    "teaches": "written by",
    "makes": "made by",
    "measures": "measured by",
    "start": "starts from",
}


def lines_of(lineage: Lineage) -> list[str]:
    """The lineage of a checkpoint or a stage, or of all that a run has."""
    shown = [f"{_of(lineage)} in {lineage.root}", "", *tree_lines(lineage), ""]
    for each in lineage.stages:
        shown += [*stage_lines(each), ""]
    for each in lineage.evaluations:
        shown += [f"{each.stage} {_short(each.fingerprint)} says", *(f"    {line}" for line in each.result), ""]
    for path, earlier in lineage.before.items():
        shown += [f"{path} was made by another run:", *(f"    {line}" for line in tree_lines(earlier)), ""]
    if lineage.others:
        others = [name if is_finished else f"{name} (unfinished)" for name, is_finished in lineage.others.items()]
        shown += [f"also in this run: {', '.join(others)}", ""]
    return [*shown, *_code_lines(lineage)]


def tree_lines(lineage: Lineage) -> list[str]:
    """What was made from what, a stage a line; one that is there already is not opened again."""
    by_name = {each.stage: each for each in lineage.stages}
    used = {each.stage for stage in lineage.stages for each in stage.inputs}
    tops = lineage.of or [name for name in by_name if name not in used]
    seen: set[str] = set()
    lines: list[str] = []

    def draw(name: str, first: str, others: str) -> None:
        stage, was_seen = by_name[name], name in seen
        seen.add(name)
        made_from = list(dict.fromkeys(each.stage for each in stage.inputs if each.stage in by_name))
        below, more = ([], " (see above)") if was_seen and made_from else (made_from, "")
        lines.append(f"{first}{name} {_short(stage.fingerprint)}{more}{'' if stage.finished else '  UNFINISHED'}")
        for number, each in enumerate(below, 1):
            is_last = number == len(below)
            draw(str(each), f"{others}{'└── ' if is_last else '├── '}", f"{others}{'    ' if is_last else '│   '}")

    for top in tops:
        draw(top, "", "")
    return lines


def stage_lines(stage: StageFacts) -> list[str]:
    """What a stage was made from, a fact a line."""
    head = f"{stage.stage} {stage.fingerprint or '(being moved aside)'}"
    facts = [
        ("state", _state(stage)),
        ("served as", stage.served_as if stage.weights else None),
        ("from", ", ".join(_input(each) for each in stage.inputs if each.stage)),
        ("outside", ", ".join(_input(each) for each in stage.inputs if not each.stage)),
        ("rows", _rows(stage.counts)),
        ("data", ", ".join(_with_note(name, stage.commits, stage.licences) for name in stage.data)),
        *((_DOES[each.role], _model(each, stage.licences)) for each in stage.models),
        ("trained on", _trained(stage.trained)),
        ("settings", _settings(stage)),
        ("cost", cost(stage)),
        *(("alarm", alarm) for alarm in stage.alarms),
    ]
    width = max(len(name) for name, _ in facts)
    return [head, *(f"    {name:<{width}}  {value}" for name, value in facts if value)]


def rows_line(counts: Counts) -> str:
    """Where a stage's rows are: those in it are those that it kept and dropped."""
    lost = sum(counts.dropped.values())
    added = f" + {counts.added:,} more that came of them" if counts.added else ""
    by_reason = sorted(counts.dropped.items(), key=lambda item: (-item[1], item[0]))
    why = f" ({', '.join(f'{reason} {count:,}' for reason, count in by_reason)})" if lost else ""
    return f"{counts.rows_in:,} in{added} = {counts.rows_out:,} kept + {lost:,} dropped{why}"


def cost(stage: StageFacts) -> str:
    """Time, replies, tokens and money that a stage took, as far as its manifest says."""
    parts = [] if stage.seconds is None else [f"{stage.seconds:,.0f} s"]
    if asked := stage.asked:
        tokens = f"{asked.get('prompt_tokens', 0):,} + {asked.get('tokens', 0):,} tokens"
        parts += [f"{asked.get('requests', 0):,} replies", tokens]
        parts += [f"{asked['usd']:.2f} US dollars"] if asked.get("usd") else []
    return ", ".join(parts)


def settings_of(config: Any, at: str = "") -> dict[str, Any]:
    """The plain values of settings by their dotted names; those that are not set, and lists of sections, left out."""
    if isinstance(config, Mapping):
        found: dict[str, Any] = {}
        for name, value in config.items():
            found |= settings_of(value, f"{at}.{name}" if at else str(name))
        return found
    if isinstance(config, list | tuple):
        is_plain = bool(config) and not any(isinstance(each, Mapping) for each in config)
        return {at: ", ".join(map(str, config))} if is_plain else {}
    return {} if config is None else {at: config}


def _of(lineage: Lineage) -> str:
    if not lineage.of:
        return "No model is finished; all stages"
    return " and ".join(lineage.of)


def _state(stage: StageFacts) -> str:
    if not stage.finished:
        return f"unfinished, begun {stage.begun}" if stage.begun else "unfinished"
    begun = f", begun {stage.begun}" if stage.begun else ""
    return f"finished {stage.ended}{begun}"


def _input(each: Input) -> str:
    place = each.stage if each.stage and each.stage != each.name else None
    return f"{each.name} {_short(each.fingerprint)}{f' (in {place})' if place else ''}"


def _rows(counts: Counts | None) -> str | None:
    return rows_line(counts) if counts else None


def _with_note(name: str, commits: Mapping[str, str], licences: Mapping[str, str]) -> str:
    notes = [f"commit {commits[name]}"] if name in commits else []
    notes += [f"licence {licences[name]}"] if name in licences else []
    return f"{name} ({', '.join(notes)})" if notes else name


def _model(each: UsedModel, licences: Mapping[str, str]) -> str:
    name = f"{each.name}: " if each.name and each.name != each.model else ""
    notes = [each.kind, *([f"commit {each.commit}"] if each.commit else [])]
    notes += [f"licence {licences[each.model]}"] if each.model in licences else []
    return f"{name}{each.model} ({', '.join(notes)})"


def _trained(trained: Mapping[str, Any]) -> str | None:
    if "rows" not in trained:
        return None
    few, most = trained.get("fewest_times"), trained.get("most_times")
    times = f"{most}" if few == most else f"{few} to {most}"
    return f"{trained['rows']:,} rows, each {times} time{'' if times == '1' else 's'}"


def _settings(stage: StageFacts) -> str:
    """The settings as they are, for a person to look through; those in the lines above are left out."""
    shown = {
        name: value
        for name, value in settings_of(stage.config).items()
        if not name.startswith(("evaluation.", "base.", "judging.judge.", "principles"))
        and name.rpartition(".")[2] not in ("train", "held_out", "function")
        and ".options." not in name
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def _code_lines(lineage: Lineage) -> list[str]:
    """Which code and libraries made which stages; those that were made by the same ones are told together."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for each in (*lineage.stages, *lineage.evaluations):
        if each.finished:
            key = (each.code, each.uncommitted, tuple(each.versions.items()))
            groups.setdefault(key, []).append(each.stage)
    lines: list[str] = []
    for (code, uncommitted, versions), names in groups.items():
        changed = {True: " with uncommitted changes", False: "", None: ""}[uncommitted]
        lines.append(
            f"made by {f'commit {code}{changed}' if code else 'a code without a commit'}: {_all(names, groups)}"
        )
        lines.append("    " + ", ".join(f"{name} {version}" for name, version in versions))
    return lines


def _all(names: Sequence[str], groups: Mapping[Any, Any]) -> str:
    return "all stages" if len(groups) == 1 else ", ".join(names)


def _short(fingerprint: str | None) -> str:
    return fingerprint[:_SHORT] if fingerprint else "?"
