"""Reads the scored answers to one prompt -> the two of them (or every two) that are a preference pair, or `Dropped`.

Zephyr (arXiv 2310.16944, section 3) takes the answer with the highest score as y_w and draws y_l from the others. Its
data, UltraFeedback (arXiv 2310.01377), has an overall rating of 1 to 10 and four aspects of 1 to 5 for each answer.

What is drawn depends on the seed, the prompt and its answers alone. An answer without a score, or without text, neither
wins nor loses. Ties are never broken between two answers of one pair: what is drawn is which of several best answers
wins against a lower one, and that is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from zephyr_ray.data.formats.messages import Dropped, Reason, Row, as_name, as_number
from zephyr_ray.pipeline.artifacts import content_id

REPORTED_DISAGREEMENT = 0.5  # where a recipe sets no limit: far apart enough to be a misreading
_OVERALL_SCALE = (1.0, 10.0)
_ASPECT_SCALE = (1.0, 5.0)


@dataclass(frozen=True)
class Rule:
    """How pairs come of scored answers; the fields are those of the recipe's `preferences` section."""

    seed: int = 0
    rejected: Literal["random_lower", "lowest", "every_pair"] = "random_lower"
    score: Literal["overall", "aspects"] = "overall"
    margin: float = 0.0
    disagreement: float | None = None


Ratings = Mapping[str, float]
"""An answer's aspects that have a rating, from 1 to 5."""


class Answer(NamedTuple):
    text: str
    model: str | None
    score: float
    ratings: Ratings


class Scored(NamedTuple):
    """The answers to one prompt that can win or lose."""

    kind: str
    """What `Answer.score` is."""
    answers: list[Answer]
    disagreeing: int
    """Answers whose overall rating and mean of aspects contradict each other; where the rule has a limit they are not
    among `answers`."""


class Drawn(NamedTuple):
    pairs: list[tuple[Answer, Answer]]
    """(chosen, rejected)."""
    among_best: int
    """Different answers that shared the best score and from which the chosen one was drawn."""


def binarize(completions: Sequence[Row], rule: Rule | None = None, prompt_id: str = "") -> list[tuple[Answer, Answer]]:
    """The preference pairs of one prompt, of its scored answers.

    Args:
        completions: The answers, each {response or content, model, and scores: overall_score, or annotations}.
        rule: How the answers of a pair are chosen; None: as a recipe that says nothing of it.
        prompt_id: With the rule's seed it decides which of several answers are drawn.

    Returns:
        (chosen, rejected) of each pair.

    Raises:
        Dropped: No pair comes of them, with the reason.
    """
    rule = rule or Rule()
    return draw_pairs(score_answers(completions, rule), prompt_id, rule).pairs


def score_answers(completions: Sequence[Row], rule: Rule) -> Scored:
    """The answers that have text and a score, of {response or content, model, scores}.

    Raises:
        Dropped: There are none, or fewer than two that do not contradict themselves.
    """
    if not any(isinstance(_text(item), str) for item in completions):
        raise Dropped(Reason.NOT_TEXT, "no completion has a response")
    rated = [ratings(item) for item in completions]
    kind, scores = _scores_in_use(completions, rated, rule)
    known = [
        each for each in zip(completions, scores, rated, strict=True) if each[1] is not None and _has_text(each[0])
    ]
    if not known:
        raise Dropped(Reason.EMPTY, "no scored completion has text")
    limit = REPORTED_DISAGREEMENT if rule.disagreement is None else rule.disagreement
    contradicting = [disagrees(item, aspects, limit) for item, _, aspects in known]
    count = sum(contradicting)
    if rule.disagreement is not None and count:
        known = [each for each, bad in zip(known, contradicting, strict=True) if not bad]
    answers = [
        Answer(str(_text(item)), as_name(item.get("model")), score, aspects)
        for item, score, aspects in known
        if score is not None
    ]
    return Scored(kind, answers, count)


def draw_pairs(scored: Scored, prompt_id: str, rule: Rule) -> Drawn:
    """The pairs of one prompt by the rule; the scores of a pair differ by more than the margin.

    Raises:
        Dropped: No two answers differ by more; or, where one pair is drawn, in score but not in text.
    """
    answers = scored.answers
    if len(answers) < 2 and scored.disagreeing and rule.disagreement is not None:
        raise Dropped(Reason.DISAGREEING, f"{scored.disagreeing} answers contradict themselves, {len(answers)} left")
    if rule.rejected == "every_pair":
        return _every_pair(answers, rule.margin)
    top = max(answer.score for answer in answers)
    best = [answer for answer in answers if answer.score == top]
    chosen = _draw(best, rule.seed, prompt_id, "chosen")
    lower = [(chosen, answer) for answer in answers if top - answer.score > rule.margin]
    lower = _different(_some(lower, top, rule.margin))
    if rule.rejected == "lowest":
        bottom = min(answer.score for _, answer in lower)
        lower = [pair for pair in lower if pair[1].score == bottom]
    rejected = _draw([answer for _, answer in lower], rule.seed, prompt_id, "rejected")
    return Drawn([(chosen, rejected)], len({answer.text for answer in best}))


def _every_pair(answers: Sequence[Answer], margin: float) -> Drawn:
    """Every strict pair, also one of two equal texts: it is a row that is dropped for it."""
    top = max(answer.score for answer in answers)
    ranked = [sorted(two, key=lambda answer: -answer.score) for two in itertools.combinations(answers, 2)]
    apart = [(first, second) for first, second in ranked if first.score - second.score > margin]
    return Drawn(_some(apart, top, margin), 1)


def _different(pairs: list[tuple[Answer, Answer]]) -> list[tuple[Answer, Answer]]:
    """Those pairs that are two texts."""
    different = [(chosen, rejected) for chosen, rejected in pairs if chosen.text != rejected.text]
    if not different:
        raise Dropped(Reason.IDENTICAL_PAIR, pairs[0][0].text)
    return different


def _some(pairs: list[tuple[Answer, Answer]], top: float, margin: float) -> list[tuple[Answer, Answer]]:
    if not pairs:
        by = f" by more than {margin:g}" if margin else ""
        raise Dropped(Reason.TIE, f"no answer scores below {top:g}{by}")
    return pairs


def disagrees(item: Row, rated: Ratings, limit: float) -> bool:
    """Whether an answer's overall rating and the mean of its aspects, each as a share of its scale, differ by more.

    In UltraFeedback's first release an overall rating of 10 was often a misread 1. Numbers outside of the scales are of
    another kind and contradict nothing.
    """
    if not rated:
        return False
    overall, mean = as_number(item.get("overall_score")), mean_rating(item, rated)
    if overall is None or mean is None:
        return False
    shares = _share(overall, _OVERALL_SCALE), _share(mean, _ASPECT_SCALE)
    return all(0 <= share <= 1 for share in shares) and abs(shares[0] - shares[1]) > limit


def _share(value: float, scale: tuple[float, float]) -> float:
    low, high = scale
    return (value - low) / (high - low)


def ratings(item: Row) -> Ratings:
    """The aspects that have a rating: {aspect: {"rating" or "Rating": number or text}} as numbers.

    An overall rating among the annotations is none of an aspect; it has another scale.
    """
    annotations = item.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    found = {}
    for name, aspect in annotations.items():
        if isinstance(aspect, dict) and name != "overall":
            rating = as_number(aspect.get("rating", aspect.get("Rating")))
            if rating is not None:
                found[str(name)] = rating
    return found


def mean_rating(item: Row, rated: Ratings) -> float | None:
    """Mean of the aspects that have a rating, on their own scale of 1 to 5: one that is missing does not count."""
    return sum(rated.values()) / len(rated) if rated else None


def _overall(item: Row, rated: Ratings) -> float | None:
    return as_number(item.get("overall_score"))


def _fine_grained(item: Row, rated: Ratings) -> float | None:
    return as_number(item.get("fine-grained_score", item.get("fine_grained_score")))


def _correctness(item: Row, rated: Ratings) -> float | None:
    return float(item["is_correct"]) if isinstance(item.get("is_correct"), bool) else None


_SCORES: dict[str, dict[str, Callable[[Row, Ratings], float | None]]] = {
    "overall": {
        "overall_score": _overall,
        "fine-grained_score": _fine_grained,
        "mean of aspects": mean_rating,
        "is_correct": _correctness,
    },
    "aspects": {"mean of aspects": mean_rating, "fine-grained_score": _fine_grained},
}


def _scores_in_use(completions: Sequence[Row], rated: Sequence[Ratings], rule: Rule) -> tuple[str, list[float | None]]:
    """The first kind of score that any answer of the row has: two kinds are never compared with each other."""
    for kind, score in _SCORES[rule.score].items():
        scores = [score(item, aspects) for item, aspects in zip(completions, rated, strict=True)]
        if any(value is not None for value in scores):
            return kind, scores
    raise Dropped(Reason.UNSCORED, f"no score among {sorted({str(key) for item in completions for key in item})}")


def _text(item: Row) -> object:
    return item.get("response", item.get("content"))


def _has_text(item: Row) -> bool:
    text = _text(item)
    return isinstance(text, str) and bool(text.strip())


def _draw(answers: Sequence[Answer], seed: int, prompt_id: str, what: str) -> Answer:
    return answers[int(content_id(seed, prompt_id, what), 16) % len(answers)]
