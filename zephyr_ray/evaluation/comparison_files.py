"""Reads comparisons of two models from recorded judgments, in our own lines and in those of known programs.

| rows | A and B | a prompt |
| --- | --- | --- |
| {id, a_score, b_score} or {id, verdict, swapped_verdict} | `a` and `b` | `group`, else `id` |
| FastChat's pairs, both orders | its two models | `question_id` |
| FastChat's single scores | two of its models | `question_id` |
| AlpacaEval's annotations | `generator_2` (the model), `generator_1` | `instruction` |
| Arena-Hard's games | `model`, `baseline` | `question_id` |
| a prompt with rated `completions` (UltraFeedback's layout) | two of its models | `prompt_id`, else the prompt |
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import alpaca_eval, fastchat_files
from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.compared_models import Compared, Pair, select, two_of
from zephyr_ray.evaluation.comparison import Comparison, of_texts, outcome_of_verdicts
from zephyr_ray.evaluation.judged_files import arena_row, other
from zephyr_ray.evaluation.mt_bench_pairs import POINTS, outcome
from zephyr_ray.evaluation.own_comparisons import own_comparisons
from zephyr_ray.evaluation.rated_completions import RatedAnswer, RatedPrompt, compare_answers, rated_prompt
from zephyr_ray.evaluation.recorded_files import Recorded, Row, left_out_note, read

BASELINE = "baseline"
"""Arena-Hard's judgments do not name the model that all others are compared with."""

Name = str | None


def read_comparisons(path: str, a: Name = None, b: Name = None) -> Compared:
    """The comparisons of two models of a file.

    Args:
        path: The file.
        a: Whose wins are counted. None: the file compares two models only, and it is the first of them.
        b: The other one.

    Raises:
        UserError: The file cannot be read, is of no such kind, or the names do not pick two of its models.
    """
    recorded = read(path)
    keys = {key for row in recorded.rows for key in row}
    for mark, reader in _READERS.items():
        if mark in keys:
            return reader(path, recorded, a, b)
    raise UserError(
        f"{path}: no row is a comparison; a row is {{id, a_score, b_score}} or {{id, verdict}}, or one of FastChat's, "
        f"AlpacaEval's, Arena-Hard's, or has rated completions (here are {', '.join(sorted(keys)[:8])})"
    )


def from_rated_prompts(path: str, rows: Iterable[Row], a: Name = None, b: Name = None) -> Compared:
    """Two models' rated completions; the last row of a prompt counts. Arguments and errors as of `read_comparisons`."""
    prompts: dict[Hashable, RatedPrompt] = {}
    lines = complete = 0
    for row in rows:
        lines += 1
        rated = rated_prompt(row)
        if rated:
            complete += 1
            prompts[rated.prompt] = rated
    first, second = two_of(path, [name for rated in prompts.values() for name in rated.answers], a, b)
    by_prompt = [compare_answers(rated, first, second) for rated in prompts.values()]
    return Compared(
        first,
        second,
        [comparison for found in by_prompt for comparison in found],
        lines,
        repeated=complete - len(prompts),
        incomplete=lines - complete,
        others=sum(not found for found in by_prompt),
    )


def notes(compared: Compared) -> list[str]:
    """What a person should know of the file, a line each."""
    found = {
        "no JSON object": compared.broken,
        "without what such a judgment has": compared.incomplete,
        "replaced by a later one": compared.repeated,
        "of other models": compared.others,
        "of a model with itself": compared.with_itself,
    }
    return left_out_note(compared.lines, found)


def counts(compared: Compared) -> dict[str, int]:
    """How many lines there were, and what of them does not count, as `--json` writes it."""
    names = ("lines", "broken", "incomplete", "repeated", "others", "with_itself")
    return {name: getattr(compared, name) for name in names}


def listed_problems(compared: Compared) -> str:
    """How many comparisons have no result, by the reason, in brackets; nothing where all have one."""
    problems = Counter(each.problem for each in compared.comparisons if each.outcome is None)
    texts = [f"{count} {problem}" for problem, count in problems.items()]
    return f" ({', '.join(texts)})" if texts else ""


def _own(path: str, recorded: Recorded, a: Name, b: Name) -> Compared:
    found = own_comparisons(path, recorded.rows)
    repeated = len(recorded.rows) - len(found)
    return Compared(a or "a", b or "b", found, recorded.lines, recorded.broken, repeated=repeated)


def _completions(path: str, recorded: Recorded, a: Name, b: Name) -> Compared:
    compared = from_rated_prompts(path, recorded.rows, a, b)
    return replace(compared, lines=recorded.lines, broken=recorded.broken)


def _fastchat_pairs(path: str, recorded: Recorded, a: Name, b: Name) -> Compared:
    read = fastchat_files.pair_judgments(recorded)
    pairs = [Pair(each.model_1, each.model_2, _fastchat_comparison(each)) for each in read.judgments]
    return _selected(path, recorded, pairs, a, b, repeated=read.repeated, incomplete=read.incomplete)


def _fastchat_comparison(judgment: fastchat_files.PairJudgment) -> Comparison:
    result = outcome(judgment, judgment.model_1)
    if result is None:
        return Comparison(judgment.question, None, judgment.problem)
    first, second = (_VERDICTS[game] for game in (judgment.first_game, judgment.second_game) if game)
    return Comparison(judgment.question, POINTS[result], orders=(first, second))


def _fastchat_singles(path: str, recorded: Recorded, a: Name, b: Name) -> Compared:
    """The scores of one question and turn; those of several judges or samples are averaged."""
    read = fastchat_files.single_judgments(recorded)
    first, second = two_of(path, [each.model for each in read.judgments], a, b)
    answers: dict[tuple[Hashable, int], dict[str, list[fastchat_files.Judgment]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for each in read.judgments:
        answers[each.answer][each.model].append(each)
    comparisons = [
        comparison
        for (question, _), models in answers.items()
        for comparison in compare_answers(RatedPrompt(question, _averaged(models)), first, second)
    ]
    others = sum(each.model not in (first, second) for each in read.judgments)
    return Compared(first, second, comparisons, recorded.lines, recorded.broken, read.repeated, read.incomplete, others)


def _alpaca_eval(path: str, recorded: Recorded, a: Name, b: Name) -> Compared:
    """A repeated instruction counts, as on the leaderboard."""
    pairs = []
    for place, row in enumerate(recorded.rows):
        share = alpaca_eval.preference(row)
        characters, is_same_answer = of_texts(row.get("output_2"), row.get("output_1"))
        comparison = Comparison(
            str(row.get("instruction", place)),
            share if isinstance(share, float) else None,
            share if isinstance(share, str) else None,
            characters=characters,
            category=str(row["dataset"]) if row.get("dataset") else None,
            is_same_answer=is_same_answer,
        )
        pairs.append(Pair(str(row.get("generator_2", "model")), str(row.get("generator_1", BASELINE)), comparison))
    return _selected(path, recorded, pairs, a, b)


def _arena(path: str, recorded: Recorded, a: Name, b: Name) -> Compared:
    """The first game shows the baseline's answer as `A`."""
    pairs: dict[Hashable, Pair] = {}
    for place, row in enumerate(recorded.rows, 1):
        read = arena_row(f"{path}: row {place}", row)
        verdicts = [other(read.judged.replies[name]) for name in ("swapped_verdict", "verdict")]
        model_first, baseline_first = verdicts
        problem = read.left_out or (None if model_first and baseline_first else "no_verdict")
        orders = (model_first, baseline_first) if model_first and baseline_first and not problem else None
        characters = (len(read.answers[1]), len(read.answers[0])) if read.answers else None
        comparison = Comparison(
            str(row.get("question_id", place)),
            outcome_of_verdicts(*orders) if orders else None,
            problem,
            orders=orders,
            characters=characters,
            is_same_answer=read.is_same_answer,
        )
        pairs[read.judged.id] = Pair(str(row.get("model")), BASELINE, comparison)
    return _selected(path, recorded, list(pairs.values()), a, b, repeated=len(recorded.rows) - len(pairs))


def _averaged(models: Mapping[str, Sequence[fastchat_files.Judgment]]) -> dict[str, list[RatedAnswer]]:
    """One rated answer of each model: the mean of its scores, or why it has none."""
    answers = {}
    for model, judgments in models.items():
        scores = [each.score for each in judgments if each.score is not None]
        answer = RatedAnswer(statistics.fmean(scores)) if scores else RatedAnswer(None, judgments[-1].problem)
        answers[model] = [answer]
    return answers


def _selected(
    path: str,
    recorded: Recorded,
    pairs: Sequence[Pair],
    a: Name,
    b: Name,
    *,
    repeated: int = 0,
    incomplete: int = 0,
) -> Compared:
    if not pairs:
        raise UserError(f"{path}: none of {recorded.lines} lines is a judgment of two models")
    first, second, comparisons = select(path, pairs, a, b)
    with_itself = sum(pair.a == pair.b for pair in pairs)
    others = len(pairs) - len(comparisons) - with_itself
    return Compared(
        first, second, comparisons, recorded.lines, recorded.broken, repeated, incomplete, others, with_itself
    )


_VERDICTS: dict[str, Verdict] = {"model_1": "a", "model_2": "b", "tie": "tie"}
_READERS: dict[str, Callable[[str, Recorded, Name, Name], Compared]] = {
    "games": _arena,
    "g1_winner": _fastchat_pairs,
    "completions": _completions,
    "preference": _alpaca_eval,
    "a_score": _own,
    "verdict": _own,
    "score": _fastchat_singles,
}
"""By a key that only such rows have."""
