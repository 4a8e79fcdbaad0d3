"""Our own lines of comparisons: {"id", "a_score", "b_score"} by ratings, {"id", "verdict", "swapped_verdict"} by rank.

Optional are `group` (the prompt, where several rows share one), `category`, and `a_tokens` and `b_tokens` or `a_text`
and `b_text`. `a` and `b` name the row's two answers in every field, whichever was shown first.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.agreement import Verdict
from zephyr_ray.evaluation.comparison import Both, Comparison, of_texts, outcome_of_scores, outcome_of_verdicts
from zephyr_ray.evaluation.judged_files import hashable, verdict_of
from zephyr_ray.evaluation.recorded_files import ERROR, Row, number


def own_comparisons(path: str, rows: Sequence[Row]) -> list[Comparison]:
    """The last row of each id.

    Raises:
        UserError: A value is none of those that it may be.
    """
    found: dict[Hashable, Comparison] = {}
    for place, row in enumerate(rows, 1):
        where = f"{path}: row {place}"
        found[hashable(row.get("id", where))] = own_comparison(row, where)
    return list(found.values())


def own_comparison(row: Row, where: str) -> Comparison:
    """One row.

    Args:
        row: The row.
        where: Where it stands, for errors; and its id if it has none.

    Raises:
        UserError: A value is none of those that it may be.
    """
    texts = row.get("a_text"), row.get("b_text")
    characters, is_same_answer = of_texts(*texts)
    is_error = any(isinstance(text, str) and text.strip() == ERROR for text in texts)
    scores = orders = None
    if by_scores := "a_score" in row or "b_score" in row:
        scores = _both(row, "score", where)
        outcome = outcome_of_scores(*scores) if scores else None
    else:
        outcome, orders = _by_verdicts(row, where)
    problem = None if outcome is not None else "no_score" if by_scores else "no_verdict"
    return Comparison(
        prompt=hashable(row.get("group", row.get("id", where))),
        outcome=None if is_error else outcome,
        problem="answer_error" if is_error else problem,
        scores=scores,
        orders=orders,
        tokens=_both(row, "tokens", where),
        characters=characters,
        category=str(row["category"]) if row.get("category") is not None else None,
        is_same_answer=is_same_answer,
    )


def _by_verdicts(row: Row, where: str) -> tuple[float | None, tuple[Verdict, Verdict] | None]:
    """The outcome, and the verdicts in both orders; without a verdict in one of the orders there is no outcome."""
    verdict = verdict_of(row.get("verdict"), f"{where}: verdict")
    if "swapped_verdict" not in row:
        return (outcome_of_verdicts(verdict) if verdict else None), None
    swapped = verdict_of(row["swapped_verdict"], f"{where}: swapped_verdict")
    if not (verdict and swapped):
        return None, None
    return outcome_of_verdicts(verdict, swapped), (verdict, swapped)


def _both(row: Row, what: str, where: str) -> Both | None:
    """The numbers under a_WHAT and b_WHAT; None where one of them is null or absent.

    Raises:
        UserError: One is no number.
    """
    found = []
    for name in (f"a_{what}", f"b_{what}"):
        value = number(row.get(name))
        if value is None and row.get(name) is not None:
            raise UserError(f"{where}: {name} {row[name]!r} is neither a number nor null")
        found.append(value)
    a, b = found
    return (a, b) if a is not None and b is not None else None
