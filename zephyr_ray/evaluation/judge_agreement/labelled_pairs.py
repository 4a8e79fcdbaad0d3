"""Pairs of answers with people's labels, of any layout that has some.

| rows | labels |
| --- | --- |
| PandaLM: instruction, input, response1, response2, annotator1 ... | 1, 2, or 0 for a tie, of each annotator |
| a prompt, completion_a, completion_b, preference (`a-is-better`, `b-is-slightly-better`, `tie`) | of `evaluator` |
| a prompt, answer_a, answer_b, and label (`a`, `b`, `tie`) or a list of labels | of `evaluator`; or these |
| any layout of preferences with a chosen and a rejected answer (docs/data.md) | one, for the chosen answer |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zephyr_ray.data.formats import layouts
from zephyr_ray.evaluation.agreement import VERDICTS, Verdict
from zephyr_ray.evaluation.judged_files import other
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import Dropped, Reason

Row = Mapping[str, Any]
Message = dict[str, str]

_ANNOTATOR = re.compile(r"annotator\d+")
_PANDALM: dict[str, Verdict] = {"0": "tie", "1": "a", "2": "b"}


@dataclass(frozen=True)
class LabelledPair:
    """Two answers to one prompt, and what people said of them."""

    pair_id: str
    """A hash of the prompt and of both answers, in whichever order."""
    messages: tuple[Message, ...]
    a: str
    b: str
    labels: Mapping[str, Verdict]
    """By person."""


def labelled_pair(row: Row) -> LabelledPair:
    """A pair of a raw row.

    Raises:
        Dropped: The row is of no such layout, has no label, or is no usable pair.
    """
    person = str(row.get("evaluator"))
    if {"response1", "response2", "annotator1"} <= row.keys():
        labels = {key: _PANDALM.get(str(value)) for key, value in row.items() if _ANNOTATOR.fullmatch(key)}
        return _pair(row, row["response1"], row["response2"], labels)
    if {"completion_a", "completion_b", "preference"} <= row.keys():
        return _pair(row, row["completion_a"], row["completion_b"], {person: _in_words(row["preference"])})
    if {"answer_a", "answer_b"} <= row.keys():
        several = isinstance(row.get("labels"), list)
        said = (
            {str(place): label for place, label in enumerate(row["labels"])} if several else {person: row.get("label")}
        )
        known = {str(name): label if label in VERDICTS else None for name, label in said.items()}
        return _pair(row, row["answer_a"], row["answer_b"], known)
    return _of_chosen(row)


def merged(pairs: Iterable[LabelledPair]) -> list[LabelledPair]:
    """Rows of the same two answers as one pair, from the first one's sides; the last label of each person counts."""
    found: dict[str, LabelledPair] = {}
    for pair in pairs:
        first = found.get(pair.pair_id)
        if first is None:
            found[pair.pair_id] = pair
        else:
            is_swapped = pair.a != first.a
            labels = {name: (other(each) or each) if is_swapped else each for name, each in pair.labels.items()}
            found[pair.pair_id] = replace(first, labels={**first.labels, **labels})
    return list(found.values())


def _pair(row: Row, a: Any, b: Any, labels: Mapping[str, Verdict | None]) -> LabelledPair:
    given = {person: label for person, label in labels.items() if label is not None}
    if not given:
        raise Dropped(Reason.UNSCORED, "no person's label")
    return _checked(layouts.prompt({**row, "output": ""})["messages"], a, b, given)


def _of_chosen(row: Row) -> LabelledPair:
    """The chosen answer is A or B by its own hash: a judge that always says A would else be right always."""
    pair = layouts.preference(row)
    prompt, chosen, rejected = pair["prompt"], pair["chosen"][-1]["content"], pair["rejected"][-1]["content"]
    if int(content_id("side", prompt, sorted([chosen, rejected])), 16) % 2:
        return _checked(prompt, chosen, rejected, {"chosen": "a"})
    return _checked(prompt, rejected, chosen, {"chosen": "b"})


def _checked(messages: list[Message], a: Any, b: Any, labels: Mapping[str, Verdict]) -> LabelledPair:
    """An empty answer is one: people saw it, and a judge is told so."""
    if not (isinstance(a, str) and isinstance(b, str)):
        raise Dropped(Reason.NOT_TEXT, "an answer is no text")
    if a == b:
        raise Dropped(Reason.IDENTICAL_PAIR, a)
    return LabelledPair(content_id("labelled", messages, sorted([a, b])), tuple(messages), a, b, labels)


def _in_words(preference: Any) -> Verdict | None:
    text = str(preference)
    return "tie" if text == "tie" else "a" if text.startswith("a-is") else "b" if text.startswith("b-is") else None
