"""The lineage of a row for a person."""

from __future__ import annotations

from collections.abc import Mapping

from zephyr_ray.data.row_lineage.facts import Answer, CompletionFacts, ModelUse, PairFacts, RowLineage

_TEXT = 200
"""Characters of a text that are shown; JSON has all of it."""


def lines_of(row: RowLineage) -> list[str]:
    """From the source of the row to the models, a fact a line."""
    shown = [f"{', '.join(row.row_ids) or row.asked}"]
    shown += [f"source     {source}" for source in row.sources]
    shown += [f"{message['role']:<10} {_short(message['content'])}" for message in row.prompt]
    shown += ["", "kept by"]
    width = max((len(each.stage) for each in row.kept), default=0)
    shown += [f"    {each.stage:<{width}}  {each.row_id}  {each.file} row {each.number:,}" for each in row.kept]
    shown += [] if row.kept else ["    no stage"]
    for each in row.dropped:
        shown.append(f"dropped by {each.stage}: {each.reason} ({each.detail}; source {each.source})")
    shown += [f"{stage}: {error}" for stage, error in row.errors.items()]
    for completion in row.completions:
        shown += ["", *_completion_lines(completion)]
    for pair in row.pairs:
        shown += ["", *_pair_lines(pair)]
    return [*shown, "", *_model_lines(row)]


def _completion_lines(each: CompletionFacts) -> list[str]:
    tokens = "" if each.tokens is None else f", {each.tokens} tokens"
    by = f"{each.model}" if each.round == 1 else f"{each.model} in round {each.round}"
    lines = [
        f"completion {each.number} by {by}: seed {each.seed}, finish reason {each.finish_reason}{tokens}",
        f"    {_short(each.content)}",
    ]
    if each.principle:
        lines.append(f"    told: {_short(each.principle)}")
    if each.overall_score is not None or each.ratings:
        lines.append(f"    overall score {each.overall_score}{_ratings(each.ratings)}")
    for opinion in each.opinions:
        check = " (position check, in no mean)" if opinion.is_reversed else ""
        lines.append(f"    {opinion.judge} rates {opinion.aspect} {opinion.rating}{check}")
    return lines


def _ratings(ratings: Mapping[str, float]) -> str:
    return "".join(f", {name.replace('_', ' ')} {rating:g}" for name, rating in ratings.items())


def _pair_lines(pair: PairFacts) -> list[str]:
    return [
        f"pair {pair.pair_id} ({pair.stage})",
        f"    chosen    {_answer(pair.chosen)}",
        f"    rejected  {_answer(pair.rejected)}",
        f"    why: {pair.why}",
    ]


def _answer(answer: Answer) -> str:
    told = [
        None if answer.completion is None else f"completion {answer.completion}",
        answer.model,
        None if answer.score is None else f"score {answer.score}",
    ]
    return f"{', '.join(filter(None, told)) or 'without a score'}: {_short(answer.content)}"


def _model_lines(row: RowLineage) -> list[str]:
    lines = [f"held out: {', '.join(row.held_out)}"] if row.held_out else []
    lines += [_use(each) for each in row.models]
    return lines or ["no model of this run was trained on it"]


def _use(each: ModelUse) -> str:
    times = "" if each.times is None else f" {each.times} time{'' if each.times == 1 else 's'}"
    verb = "was trained on it" if each.is_finished else "is to be trained on it (unfinished)"
    before = f"; from it came {', '.join(each.before)}" if each.before else ""
    return f"{each.stage} {verb}{times} (as {each.row_id} of {each.rows}){before}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else f"{line[:_TEXT]}..."
