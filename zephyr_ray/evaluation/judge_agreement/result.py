"""A judge against people: its agreement with them and with itself, and theirs with each other beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr_ray.evaluation import agreement
from zephyr_ray.evaluation.agreement import Agreement, Judged, Share, Verdict
from zephyr_ray.evaluation.judge_agreement.people import Paired, among_people, majority, with_one_person
from zephyr_ray.evaluation.judge_agreement.verdicts import judges_of, replies_of

Labels = Mapping[str, Sequence[Verdict]]
"""People's labels by the pair's id."""
Rows = Mapping[str, Mapping[str, Any]]
"""`schemas.JUDGMENTS` by the pair's id, with the completions A and B; a pair that was not judged is not there."""


@dataclass(frozen=True)
class JudgeAndPeople:
    """What a judge and people say of the same pairs."""

    judge: Agreement
    """With the majority of the labels, and with itself."""
    with_one_person: Paired
    people: Paired
    """What is the most that the line above can be expected to reach."""
    no_majority: int
    """Pairs whose labels have none, which `judge` leaves out of accuracy and kappa."""
    judges: dict[str, Agreement]
    """Each judge alone, where there are several."""


def compare_with_people(labels: Labels, rows: Rows) -> JudgeAndPeople:
    """All numbers. A pair without a judgment counts as one without a verdict."""
    found = judged_pairs(labels, rows)
    names = judges_of(rows.values())
    alone = names if len(names) > 1 else ()
    return JudgeAndPeople(
        judge=agreement.agreement(found),
        with_one_person=with_one_person([*labels.values()], [each.replies.get("verdict") for each in found]),
        people=among_people([*labels.values()]),
        no_majority=sum(each.label is None for each in found),
        judges={name: agreement.agreement(judged_pairs(labels, rows, name)) for name in alone},
    )


def judged_pairs(labels: Labels, rows: Rows, judge: str | None = None) -> list[Judged]:
    """Each pair with the majority of its labels and the verdicts."""
    found = []
    for pair_id, given in labels.items():
        replies: dict[str, Verdict | None] = {"verdict": None}
        if pair_id in rows:
            a, b = rows[pair_id]["completions"]
            replies = replies_of(a, b, judge)
        found.append(Judged(pair_id, majority(given), replies))
    return found


def verdict_rows(labels: Labels, rows: Rows) -> list[dict[str, Any]]:
    """The pairs as lines that `jobs/evaluate.py agreement` reads."""
    return [{"id": each.id, "label": each.label, **each.replies} for each in judged_pairs(labels, rows)]


def as_json(found: JudgeAndPeople) -> dict[str, Any]:
    """The numbers as `summary.json` has them; of the judge those of `jobs/evaluate.py agreement`."""
    return {
        "judge": agreement.as_json(found.judge),
        "with_one_person": _paired_json(found.with_one_person),
        "people": _paired_json(found.people),
        "no_majority": found.no_majority,
        "judges": {name: agreement.as_json(each) for name, each in found.judges.items()},
    }


def _paired_json(paired: Paired) -> dict[str, Any]:
    return {name: share._asdict() for name, share in paired._asdict().items()}


def table_lines(found: JudgeAndPeople) -> list[str]:
    """The numbers for a person."""
    lines = [*agreement.table_lines(found.judge), "", f"{'':<28} {'accuracy':<22} {'kappa':<22} pairs"]
    for name, paired in (("judge with one person", found.with_one_person), ("a person with another one", found.people)):
        lines.append(f"{name:<28} {_text(paired.accuracy):<22} {_text(paired.kappa):<22} {paired.accuracy.n}")
    if not found.people.accuracy.n:
        lines.append("no two people labelled one pair, so that there is no bound")
    if found.no_majority:
        lines.append(f"pairs whose labels have no majority, left out above: {found.no_majority}")
    for name, each in found.judges.items():
        lines += ["", f"{name} alone", *agreement.table_lines(each)]
    return lines


def _text(share: Share) -> str:
    if share.value is None:
        return "-"
    return f"{share.value:.3f}" + (f" ({share.interval[0]:.3f} to {share.interval[1]:.3f})" if share.interval else "")
