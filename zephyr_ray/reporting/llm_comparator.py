"""Two models' answers side by side as a file that LLM Comparator (Kahng et al., arXiv 2402.10524) opens.

Its scores go from -1.5 (the second model is much better) to 1.5 (the first is); from 0.25 on it counts a win.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zephyr_ray.reporting.samples import Answers

MUCH, CLEARLY, SLIGHTLY = 1.5, 1.0, 0.5
_OVERALL = "overall"  # the aspect of an opinion that is a rating from 1 to 10
_STEPS = ((4.0, MUCH, "much better"), (2.0, CLEARLY, "better"), (0.0, SLIGHTLY, "slightly better"))
"""How far two ratings from 1 to 10 are apart at least, and what that counts as."""

Row = Mapping[str, Any]


def of_judgments(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The two models of a pool with the most answers in rows of `schemas.JUDGMENTS`; None where there are no two.

    Every judge's overall rating is a rater of its own, the answers in the other order too; where only aspects are
    rated, their mean is one.
    """
    counts = Counter(model for row in rows for model in {each["model"] for each in row["completions"]})
    if len(counts) < 2:
        return None
    (first, _), (second, _) = sorted(counts.most_common(2))
    examples = [example for row in rows if (example := _judged(row, first, second))]
    return _file(first, second, examples, ["rating"]) if examples else None


def of_answers(answers: Answers) -> dict[str, Any] | None:
    """The trained model of an evaluation whose answers a program checked, and the one that it started from; None where
    no program did, or it has one model only.

    A model's answers to a prompt are set beside the other's, one by one in their order.
    """
    pair = answers.policy_and_start
    if pair is None:
        return None
    at, other = (answers.models.index(name) for name in pair)
    examples = [
        _example(
            prompt,
            a.text,
            b.text,
            [_rater(float(a.passed), float(b.passed), CLEARLY)],
            {"passed": [a.passed, b.passed]},
        )
        for prompt, by_model in answers.rows
        for a, b in zip(by_model[at], by_model[other], strict=False)
        if a.passed is not None and b.passed is not None
    ]
    return _file(*pair, examples, [], ["passed"]) if examples else None


def of_pairs(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The two models that meet most often in rows of `schemas.PREFERENCES`; None where no two models meet."""
    met = Counter(
        tuple(sorted((row["chosen_model"], row["rejected_model"])))
        for row in rows
        if row["chosen_model"] and row["rejected_model"] and row["chosen_model"] != row["rejected_model"]
    )
    if not met:
        return None
    first, second = met.most_common(1)[0][0]
    examples = []
    for row in rows:
        if tuple(sorted((row["chosen_model"] or "", row["rejected_model"] or ""))) == (first, second):
            wins = row["chosen_model"] == first
            a, b = ("chosen", "rejected") if wins else ("rejected", "chosen")
            scores = [row[f"score_{a}"], row[f"score_{b}"]]
            rater = _rater(float(wins), float(not wins), CLEARLY)
            texts = row[a][-1]["content"], row[b][-1]["content"]
            examples.append(_example(_prompt(row["prompt"]), *texts, [rater], {"score": scores}))
    return _file(first, second, examples, ["score"])


def _judged(row: Row, first: str, second: str) -> dict[str, Any] | None:
    by_model = {each["model"]: each for each in reversed(row["completions"])}
    a, b = by_model.get(first), by_model.get(second)
    if a is None or b is None:
        return None
    raters = [_rater(of_a, of_b, None, about) for about, (of_a, of_b) in _opinions(a, b)]
    ratings = [_rating_of(a), _rating_of(b)]
    if not raters and ratings[0] is not None and ratings[1] is not None:
        raters = [_rater(ratings[0], ratings[1], None)]
    if not raters:
        return None
    return _example(_prompt(row["messages"]), a["content"], b["content"], raters, {"rating": ratings})


def _opinions(a: Row, b: Row) -> Iterable[tuple[dict[str, Any], tuple[float, float]]]:
    """Each rater's overall ratings of both completions."""

    def by_rater(completion: Row) -> dict[tuple[Any, ...], Row]:
        return {
            (each["judge"], each["repeat"], each["is_reversed"]): each
            for each in completion["opinions"] or ()
            if each["aspect"] == _OVERALL and each["rating"] is not None
        }

    of_b = by_rater(b)
    for rater, opinion in by_rater(a).items():
        if rater in of_b:
            about = {"rationale": opinion["rationale"] or "", "is_flipped": bool(rater[2])}
            yield about, (opinion["rating"], of_b[rater]["rating"])


def _rating_of(completion: Row) -> float | None:
    if completion["overall_score"] is not None:
        return float(completion["overall_score"])
    annotations = (completion["annotations"] or {}).values()
    ratings = [each["rating"] for each in annotations if each and each["rating"] is not None]
    return sum(ratings) / len(ratings) if ratings else None


def _rater(a: float, b: float, always: float | None, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One rater's verdict; `always` is what a difference of any size counts as."""
    size, words = next((size, words) for least, size, words in _STEPS if abs(a - b) >= least)
    if always is not None:
        size, words = always, "better"
    winner = "A" if a > b else "B"
    score, label = (0.0, "same") if a == b else (size if a > b else -size, f"{winner} is {words}")
    plain = {"rationale": "", "is_flipped": False, "custom_fields": {}}
    return {"score": score, "rating_label": label, **plain, **(about or {})}


def _example(prompt: str, a: str, b: str, raters: list[dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "input_text": prompt,
        "tags": [],
        "output_text_a": a,
        "output_text_b": b,
        "score": sum(rater["score"] for rater in raters) / len(raters),
        "individual_rater_scores": raters,
        "rationale_list": [],
        "custom_fields": fields,
    }


def _file(
    first: str, second: str, examples: list[dict[str, Any]], numbers: Sequence[str], booleans: Sequence[str] = ()
) -> dict[str, Any]:
    schema = [{"name": name, "type": "per_model_number"} for name in numbers]
    schema += [{"name": name, "type": "per_model_boolean"} for name in booleans]
    return {
        "metadata": {"source_path": "zephyr_ray", "custom_fields_schema": schema},
        "models": [{"name": first}, {"name": second}],
        "examples": examples,
        "rationale_clusters": [],
    }


def _prompt(messages: Sequence[Row]) -> str:
    """The text of a prompt; with the roles where it has several messages."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{each['role']}: {each['content']}" for each in messages)
