"""Make preference pairs of the scored completions of one prompt.

Zephyr (arXiv 2310.16944, section 3) takes the completion with the highest score as y_w and draws y_l from the others.
Its data, UltraFeedback (arXiv 2310.01377), rates each completion overall from 1 to 10 and in four aspects from 1 to 5.

A draw depends only on the seed, the prompt and its completions. A completion without a score or without text is in no
pair. Two completions are compared by the raters that rated both, exactly (`shared_ratings`). Two that are equal never
form a pair; if several are the best, the one that wins is drawn, and the draw is counted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, NamedTuple

from zephyr_ray.data.formats.messages import Row, as_name, as_number, same_text
from zephyr_ray.data.shared_ratings import ByRater, exact, opinions_by_rater, shared_means
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import Dropped, Reason

REPORTED_DISAGREEMENT = 0.5  # used if a recipe sets no limit: a difference that suggests a misread rating
_OVERALL_SCALE = (1.0, 10.0)
_ASPECT_SCALE = (1.0, 5.0)


@dataclass(frozen=True)
class Rule:
    """The rule for making pairs; its fields are those of the recipe's `preferences` section."""

    seed: int = 0
    rejected: Literal["random_lower", "lowest", "every_pair"] = "random_lower"
    score: Literal["overall", "aspects"] = "overall"
    margin: float = 0.0
    disagreement: float | None = None
    cut_answers: Literal["lose", "keep"] = "lose"


Ratings = Mapping[str, float]
"""A completion's ratings from 1 to 5, by aspect."""


class ScoredCompletion(NamedTuple):
    """A completion with its score and the ratings of its aspects."""

    text: str
    model: str | None
    score: float
    ratings: Ratings
    by_rater: ByRater = MappingProxyType({})
    """What the score is the mean of; empty where every completion was rated by the same raters."""
    is_cut: bool = False
    """Whether it ends at the maximum of tokens."""


ScoredPair = tuple[ScoredCompletion, ScoredCompletion]
"""(chosen, rejected), with their scores by the raters of both."""


class Compared(NamedTuple):
    """Two completions by the raters of both."""

    first: ScoredCompletion
    second: ScoredCompletion
    lead: Fraction
    """By how much the first one scores higher."""

    def turned(self) -> Compared:
        return Compared(self.second, self.first, -self.lead)


class Scored(NamedTuple):
    """The completions of one prompt that can be in a pair."""

    kind: str
    """The kind of `ScoredCompletion.score`."""
    completions: list[ScoredCompletion]
    disagreeing: int
    """Number of completions whose overall rating and mean of aspects contradict each other; if the rule has a limit,
    they are not among `completions`."""


class DrawnPairs(NamedTuple):
    """The pairs of one prompt."""

    pairs: list[ScoredPair]
    among_best: int
    """Number of distinct completions with the best score, from which the chosen one was drawn."""


def binarize(
    completions: Sequence[Row], rule: Rule | None = None, prompt_id: str = ""
) -> list[tuple[ScoredCompletion, ScoredCompletion]]:
    """The preference pairs of one prompt, of its scored completions.

    Args:
        completions: The completions, each {response or content, model, and scores: overall_score, or annotations}.
        rule: How the completions of a pair are chosen; None: as a recipe that says nothing of it.
        prompt_id: With the rule's seed it decides which of several completions are drawn.

    Returns:
        (chosen, rejected) of each pair.

    Raises:
        Dropped: No pair comes of them, with the reason.
    """
    rule = rule or Rule()
    return draw_pairs(score_completions(completions, rule), prompt_id, rule).pairs


def score_completions(completions: Sequence[Row], rule: Rule) -> Scored:
    """The completions with text and a score.

    Args:
        completions: {response or content, model, scores} of each.
        rule: Which score counts, and which completions contradict themselves.

    Raises:
        Dropped: There are none.
    """
    if not any(isinstance(_completion_text(item), str) for item in completions):
        raise Dropped(Reason.NOT_TEXT, "no completion has a response")
    rated = [ratings(item) for item in completions]
    kind, scores = scores_in_use(completions, rated, rule)
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
    usable = [
        ScoredCompletion(
            str(_completion_text(item)),
            as_name(item.get("model")),
            score,
            aspects,
            by_rater,
            item.get("finish_reason") == "length",
        )
        for (item, score, aspects), by_rater in zip(known, _by_rater(known, kind), strict=True)
        if score is not None
    ]
    return Scored(kind, usable, count)


def draw_pairs(scored: Scored, prompt_id: str, rule: Rule) -> DrawnPairs:
    """The pairs of one prompt by the rule; the scores of a pair differ by more than the margin.

    Raises:
        Dropped: No two completions differ by more, or they differ in score but not in text (if one pair is drawn), or
            fewer than two do not contradict themselves.
    """
    completions = scored.completions
    if len(completions) < 2 and scored.disagreeing and rule.disagreement is not None:
        raise Dropped(
            Reason.DISAGREEING, f"{scored.disagreeing} completions contradict themselves, {len(completions)} left"
        )
    if rule.rejected == "every_pair":
        return _every_pair(completions, rule)
    best = best_completions(completions, rule)
    chosen = _draw_one(best, rule.seed, prompt_id, "chosen")
    lower = _with_different_texts(_at_least_one(lower_than(chosen, completions, rule.margin), completions, rule.margin))
    if rule.rejected == "lowest":
        most = max(each.lead for each in lower)
        lower = [each for each in lower if each.lead == most]
    rejected = _draw_one([each.second for each in lower], rule.seed, prompt_id, "rejected")
    pair = next((each.first, each.second) for each in lower if each.second is rejected)
    return DrawnPairs([pair], len({completion.text for completion in best}))


def best_of(completions: Sequence[ScoredCompletion], rule: Rule, prompt_id: str) -> ScoredCompletion:
    """The best completion; of several one that is drawn.

    Raises:
        Dropped: All are cut.
    """
    return _draw_one(best_completions(completions, rule), rule.seed, prompt_id, "chosen")


def best_completions(completions: Sequence[ScoredCompletion], rule: Rule) -> list[ScoredCompletion]:
    """Those that lead the others by most on average, of the completions that may win.

    Where every rater rated all, they are those with the highest score.

    Raises:
        Dropped: None may win.
    """
    able = [each for each in completions if _may_win(each, rule)]
    if not able:
        raise Dropped(Reason.CUT_OFF, "all completions were cut at the maximum of tokens")
    is_complete = not any(each.by_rater for each in completions)
    leads = [exact(each.score) if is_complete else _mean_lead(each, completions) for each in able]
    top = max(leads)
    return [each for each, lead in zip(able, leads, strict=True) if lead == top]


def lower_than(chosen: ScoredCompletion, completions: Sequence[ScoredCompletion], margin: float) -> list[Compared]:
    """The completions that score lower than the chosen one by more than the margin."""
    found = [compare(chosen, each) for each in completions if each is not chosen]
    return [each for each in found if each is not None and each.lead > exact(margin)]


def compare(first: ScoredCompletion, second: ScoredCompletion) -> Compared | None:
    """Two completions by the raters of both; None if there are none."""
    if not (first.by_rater and second.by_rater):
        return Compared(first, second, exact(first.score) - exact(second.score))
    shared = shared_means(first.by_rater, second.by_rater)
    if shared is None:
        return None
    a, b = shared
    return Compared(first._replace(score=float(a)), second._replace(score=float(b)), a - b)


def _mean_lead(completion: ScoredCompletion, completions: Sequence[ScoredCompletion]) -> Fraction:
    """By how much it leads the others, on average over those with a rater in common."""
    leads = [
        compared.lead
        for other in completions
        if other is not completion and (compared := compare(completion, other)) is not None
    ]
    return sum(leads, Fraction()) / len(leads) if leads else Fraction()


def _may_win(completion: ScoredCompletion, rule: Rule) -> bool:
    return rule.cut_answers == "keep" or not completion.is_cut


def _every_pair(completions: Sequence[ScoredCompletion], rule: Rule) -> DrawnPairs:
    """Every pair with a large enough margin, including pairs of equal texts, which are dropped as rows later."""
    margin = exact(rule.margin)
    compared = [compare(*two) for two in itertools.combinations(completions, 2)]
    ranked = [each if each.lead > 0 else each.turned() for each in compared if each is not None]
    apart = _at_least_one([each for each in ranked if each.lead > margin], completions, rule.margin)
    won = [(each.first, each.second) for each in apart if _may_win(each.first, rule)]
    if not won:
        raise Dropped(Reason.CUT_OFF, "every completion that scores higher was cut at the maximum of tokens")
    return DrawnPairs(won, 1)


def _with_different_texts(pairs: list[Compared]) -> list[Compared]:
    """The pairs of two different texts."""
    different = [each for each in pairs if not same_text(each.first.text, each.second.text)]
    if not different:
        raise Dropped(Reason.IDENTICAL_PAIR, pairs[0].first.text)
    return different


def _at_least_one(pairs: list[Compared], completions: Sequence[ScoredCompletion], margin: float) -> list[Compared]:
    """The pairs, or `Dropped` if there are none."""
    if pairs:
        return pairs
    if len(completions) > 1 and all(compare(*two) is None for two in itertools.combinations(completions, 2)):
        raise Dropped(Reason.NO_SHARED_RATER, "no two completions were rated by the same rater")
    top = max(completion.score for completion in completions)
    by = f" by more than {margin:g}" if margin else ""
    raise Dropped(Reason.TIE, f"no completion scores below {top:g}{by}")


def disagrees(item: Row, rated: Ratings, limit: float) -> bool:
    """Whether a completion's overall rating and mean of aspects, as shares of their scales, differ by over `limit`.

    In UltraFeedback's first release an overall rating of 10 was often a misread 1. Numbers outside the scales are of
    another kind and are not compared.
    """
    if not rated:
        return False
    overall, mean = as_number(item.get("overall_score")), mean_rating(item, rated)
    if overall is None or mean is None:
        return False
    shares = _share_of_scale(overall, _OVERALL_SCALE), _share_of_scale(mean, _ASPECT_SCALE)
    return all(0 <= share <= 1 for share in shares) and abs(shares[0] - shares[1]) > limit


def _share_of_scale(value: float, scale: tuple[float, float]) -> float:
    low, high = scale
    return (value - low) / (high - low)


def ratings(item: Row) -> Ratings:
    """The numeric ratings of the aspects, from annotations {aspect: {"rating" or "Rating": number or text}}.

    An overall rating among the annotations is left out, because it has another scale.
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


def _by_rater(known: Sequence[tuple[Row, float | None, Ratings]], kind: str) -> list[ByRater]:
    """The ratings that each completion's score is the mean of, by rater; none of any if the raters of all are the same.

    Where a score is of no known raters, aspects are taken as one rater's, and another kind of score as all raters'.
    """
    is_mean = kind == _MEAN_OF_ASPECTS
    found = [
        opinions_by_rater(item, score, aspects if is_mean else ("overall",))
        or ({aspect: {("", ""): rating} for aspect, rating in aspects.items()} if is_mean else {})
        for item, score, aspects in known
    ]
    raters = [{aspect: ratings.keys() for aspect, ratings in each.items()} for each in found]
    return [{} for _ in known] if all(each == raters[0] for each in raters) else found


def mean_rating(item: Row, rated: Ratings) -> float | None:
    """Mean of the ratings of the aspects, on their scale of 1 to 5; missing ratings do not count."""
    return math.fsum(rated.values()) / len(rated) if rated else None


def _overall_score(item: Row, rated: Ratings) -> float | None:
    return as_number(item.get("overall_score"))


def _fine_grained(item: Row, rated: Ratings) -> float | None:
    return as_number(item.get("fine-grained_score", item.get("fine_grained_score")))


def _correctness(item: Row, rated: Ratings) -> float | None:
    return float(item["is_correct"]) if isinstance(item.get("is_correct"), bool) else None


_MEAN_OF_ASPECTS = "mean of aspects"
_SCORES: dict[str, dict[str, Callable[[Row, Ratings], float | None]]] = {
    "overall": {
        "overall_score": _overall_score,
        "fine-grained_score": _fine_grained,
        _MEAN_OF_ASPECTS: mean_rating,
        "is_correct": _correctness,
    },
    "aspects": {_MEAN_OF_ASPECTS: mean_rating, "fine-grained_score": _fine_grained},
}


def scores_in_use(completions: Sequence[Row], rated: Sequence[Ratings], rule: Rule) -> tuple[str, list[float | None]]:
    """The first kind of score that any completion of the row has, with the scores; kinds are never mixed."""
    for kind, score in _SCORES[rule.score].items():
        scores = [score(item, aspects) for item, aspects in zip(completions, rated, strict=True)]
        if any(value is not None for value in scores):
            return kind, scores
    raise Dropped(Reason.UNSCORED, f"no score among {sorted({str(key) for item in completions for key in item})}")


def _completion_text(item: Row) -> object:
    return item.get("response", item.get("content"))


def _has_text(item: Row) -> bool:
    text = _completion_text(item)
    return isinstance(text, str) and bool(text.strip())


def _draw_one(completions: Sequence[ScoredCompletion], seed: int, prompt_id: str, what: str) -> ScoredCompletion:
    return completions[int(content_id(seed, prompt_id, what), 16) % len(completions)]
