"""What is suspicious in a run, in words: each alarm with the number that raised it, its limit, and what to do.

An alarm is a reason to look, and no proof. Every limit stands here. A function takes plain numbers and returns alarms,
so that each can be checked by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zephyr_ray.reporting.evaluations import Estimate
from zephyr_ray.reporting.row_flow import Arrow
from zephyr_ray.reporting.text_form import Form, Gap, gaps

CHOSEN_LONGER = 1.1
"""Mean characters of chosen answers over those of rejected ones."""
ANSWERS_GROW = 1.2
"""Mean characters of the trained model's answers over those of the model that it started from."""
CHOSEN_FELL_NATS = 1.0
"""How far the log-prob of chosen completions may fall below the reference's, while that of rejected ones falls too."""
FORM_GAP = 0.1
"""Difference of two shares of texts with a mark of form; its 95 % interval must lie above 0 as well."""
DROPPED_SHARE = 0.2
"""Share of a stage's rows that is dropped, without what it was asked to leave out."""
SAME_ORDER = 0.7
"""Share of pairs of answers that a judge puts in the same order twice."""
LAST_SHARE = 0.25
"""Share of the logged steps, at the end, whose mean counts as the end of a training."""

_ASKED_FOR = frozenset({"not_selected", "in_training"})
"""Reasons for which rows go because the recipe asks for fewer of them."""

Level = Literal["alarm", "note"]


@dataclass(frozen=True)
class Alarm:
    """A reason to look."""

    about: str
    """The stage."""
    said: str
    """What was seen, with the number and its limit."""
    do: str
    """What to do about it."""
    level: Level = "alarm"
    """note: worth knowing, and often as it should be."""


def percent(share: float, digits: int = 1) -> str:
    """A share as a person reads it."""
    return f"{100 * share:.{digits}f} %"


def length_bias(chosen: float | None, rejected: float | None, stage: str = "preferences") -> list[Alarm]:
    """Chosen answers that are longer than rejected ones.

    Args:
        chosen: Mean characters of chosen answers.
        rejected: The same of rejected ones.
        stage: Whose pairs they are.
    """
    if not chosen or not rejected or chosen / rejected < CHOSEN_LONGER:
        return []
    said = (
        f"chosen answers have {chosen:,.0f} characters on average and rejected ones {rejected:,.0f}: "
        f"{chosen / rejected:.2f} times as many (limit {CHOSEN_LONGER:g})"
    )
    do = (
        "The model may learn to be long, not good. Read pairs whose chosen answer is the longer one; judge with a "
        "rubric that ignores length, set a larger preferences.margin, or train with dpo.training.trl.ld_alpha."
    )
    return [Alarm(stage, said, do)]


def growing_answers(policy: Form, start: Form, policy_name: str, start_name: str) -> list[Alarm]:
    """Answers of the trained model that are longer than those of the model it started from, on the same prompts."""
    if not policy.texts or not start.mean_characters:
        return []
    ratio = policy.mean_characters / start.mean_characters
    if ratio < ANSWERS_GROW:
        return []
    said = (
        f"{policy_name} answers with {policy.mean_characters:,.0f} characters on average and {start_name} with "
        f"{start.mean_characters:,.0f} on the same prompts: {ratio:.2f} times as many (limit {ANSWERS_GROW:g})"
    )
    do = (
        "Judges like length: compare length-controlled win rates before you believe a gain. A higher dpo.beta or fewer "
        "steps keep answers nearer to the start."
    )
    return [Alarm(policy_name, said, do)]


def falling_chosen(rows: Sequence[Mapping[str, float]], beta: float | None, stage: str = "dpo") -> list[Alarm]:
    """Chosen completions that became less likely, together with the rejected ones.

    An implicit reward is beta times the change of a completion's log-prob against the reference, so the mean over the
    last steps says how far the log-probs have moved, whatever pairs those steps had (arXiv 2402.13228 says
    why the chosen one may fall).

    Args:
        rows: The logged rows, with `rewards/chosen` and `rewards/rejected`.
        beta: The reward's scale.
        stage: The training.
    """
    chosen, rejected = at_the_end(rows, "rewards/chosen"), at_the_end(rows, "rewards/rejected")
    if chosen is None or rejected is None or not beta or chosen / beta > -CHOSEN_FELL_NATS or rejected >= 0:
        return []
    said = (
        f"at the end the log-prob of chosen completions lies {-chosen / beta:.1f} nats below the reference's (limit "
        f"{CHOSEN_FELL_NATS:g}), that of rejected ones {-rejected / beta:.1f} nats"
    )
    do = (
        "The margin grows because rejected completions fall faster; the probability goes to answers that nobody rated. "
        "Look at samples. A lower dpo.learning_rate, fewer epochs, or a loss on the chosen completion beside it "
        "(dpo.loss_type=[sigmoid, sft] with dpo.loss_weights) hold it up."
    )
    return [Alarm(stage, said, do)]


def form_rewarded(first: Form, second: Form, first_name: str, second_name: str, about: str) -> list[Alarm]:
    """Marks of form that are more frequent on the first side: in chosen answers, or in those of the trained model."""
    return [_form_alarm(gap, first_name, second_name, about) for gap in gaps(first, second) if _is_wide(gap)]


def _is_wide(gap: Gap) -> bool:
    return gap.value >= FORM_GAP and gap.low > 0


def _form_alarm(gap: Gap, first_name: str, second_name: str, about: str) -> Alarm:
    said = (
        f"{gap.what}: in {percent(gap.first)} of {first_name} and {percent(gap.second)} of {second_name}, "
        f"{100 * gap.value:+.1f} points (95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}; limit "
        f"{100 * FORM_GAP:g})"
    )
    do = (
        "Form may be rewarded in place of content. Read some of them; if the content does not deserve it, say in the "
        "judge's rubric that form does not count, or balance the pairs."
    )
    return Alarm(about, said, do)


def contamination(stage: str, dropped: Mapping[str, int], noted: Mapping[str, float]) -> list[Alarm]:
    """Rows that hold a benchmark's prompts, which were left out."""
    count = dropped.get("contaminated", 0)
    if not count:
        return []
    files = [f"{name.partition(' ')[2]} {number:,.0f}" for name, number in noted.items() if "contaminated" in name]
    said = f"{count:,} rows held prompts of a benchmark and were left out" + (f" ({', '.join(files)})" if files else "")
    do = (
        f"They are not trained on. Look at {stage}/dropped to see whether it is the benchmark or a common phrase; rows "
        "in other words than the benchmark's are not found."
    )
    return [Alarm(stage, said, do, "note")]


def many_dropped(arrow: Arrow) -> list[Alarm]:
    """A stage that dropped a large share of its rows."""
    lost = [(reason, count) for reason, count in arrow.dropped if reason not in _ASKED_FOR]
    total = sum(count for _, count in lost)
    if not arrow.before or total / arrow.before <= DROPPED_SHARE:
        return []
    reason, count = lost[0]
    said = (
        f"{total:,} of {arrow.before:,} rows were dropped, {percent(total / arrow.before)} (limit "
        f"{percent(DROPPED_SHARE, 0)}); most, {count:,}, as {reason.replace('_', ' ')}"
    )
    return [
        Alarm(arrow.stage, said, f"Look at some in {arrow.stage}/dropped, where each has its reason and its source.")
    ]


def lost_rows(arrow: Arrow) -> list[Alarm]:
    """Rows that are neither kept nor dropped with a reason, by the manifest."""
    if arrow.is_balanced:
        return []
    said = f"{arrow.before:,} rows in, {arrow.rows_out:,} out and {arrow.lost:,} dropped do not add up"
    return [
        Alarm(arrow.stage, said, "The manifest is not what the stage wrote, or it is a defect: make the stage anew.")
    ]


def judge_inconsistency(agreement: Mapping[str, Mapping[str, Mapping[str, Any]]], stage: str) -> list[Alarm]:
    """A judge that contradicts itself.

    Args:
        agreement: A manifest's: by kind (`orders`, `repeats`), then by aspect, `same_order` and `pairs`.
        stage: Of the judgments.
    """
    told = {
        "orders": "shown in the other order",
        "repeats": "asked again",
    }
    found = []
    for kind, how in told.items():
        for aspect, each in agreement.get(kind, {}).items():
            same = each.get("same_order")
            if same is not None and same < SAME_ORDER:
                said = (
                    f"{how}, a judge puts {percent(same)} of {each['pairs']:,} pairs of answers in the same order by "
                    f"{aspect.replace('_', ' ')} (limit {percent(SAME_ORDER, 0)})"
                )
                do = (
                    "Its preferences are partly chance. Ask it more often (judging.judge.repeats), in both orders, or "
                    "take another judge; a larger preferences.margin keeps the pairs that it is sure of."
                )
                found.append(Alarm(stage, said, do))
    return found


def told_by_stage(stage: str, lines: Iterable[str]) -> list[Alarm]:
    """Alarms that the stage itself ended with, such as an evaluation loss that rises."""
    found = []
    for line in lines:
        said, _, do = line.removeprefix("ALARM: ").rpartition("; ")
        found.append(Alarm(stage, said or do, do if said else "See the stage's log."))
    return found


def not_shown(differences: Iterable[Estimate]) -> list[Alarm]:
    """Differences whose interval contains no difference."""
    return [
        Alarm(
            each.stage,
            f"{each.what}: {each.shown}, 95 % interval {each.shown_interval}, which contains "
            f"{each.show(each.neutral)}: no difference is shown",
            "Do not choose a model by it. More prompts make the interval narrower: four times as many halve it.",
        )
        for each in differences
        if each.neutral is not None and each.low <= each.neutral <= each.high
    ]


def got_worse(differences: Iterable[Estimate]) -> list[Alarm]:
    """Differences of a model and the one that it started from whose interval lies below none."""
    return [
        Alarm(
            each.stage,
            f"{each.what}: {each.shown}, 95 % interval {each.shown_interval}: the training made the model worse here",
            "Keep the model that it started from. Read its answers and the pairs it learned from; a smaller "
            "dpo.learning_rate, fewer epochs or a higher dpo.beta keep it nearer to the start.",
        )
        for each in differences
        if "minus" in each.what and each.high < 0
    ]


def overlapping(estimates: Sequence[Estimate]) -> list[Alarm]:
    """The best of several models where its interval overlaps the next one's.

    Overlap is a coarse sign: intervals of the same questions may overlap although a paired difference is clear.
    """
    if len(estimates) < 2:
        return []
    best, second = sorted(estimates, key=lambda each: -each.value)[:2]
    if best.low > second.high:
        return []
    said = (
        f"{best.model} {best.shown} ({best.shown_interval}) and {second.model} {second.shown} ({second.shown_interval})"
        ": the 95 % intervals overlap, so the difference is not shown by them"
    )
    do = "Compare the two question by question (a paired interval is narrower), or ask more questions."
    return [Alarm(best.stage, said, do)]


def unfinished(stage: str, status: str) -> list[Alarm]:
    """A stage that has begun and has no manifest, or one that cannot be read."""
    return [Alarm(stage, status, "The command that made the run goes on from here when it is started again.", "note")]


def at_the_end(rows: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    last = values[-max(1, round(LAST_SHARE * len(values))) :]
    return sum(last) / len(last) if last else None
