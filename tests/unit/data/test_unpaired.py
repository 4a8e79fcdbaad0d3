"""Single answers with labels: thumbs, TRL's unpaired format and pairs, every row accounted for."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.data.test_preferences import judgment
from tests.unit.serving.gateway.test_feedback import choice, thumb
from zephyr_ray.config.data import Tokenized
from zephyr_ray.config.model import Chat
from zephyr_ray.data.binarize import Rule
from zephyr_ray.data.formats.unpaired import unpaired
from zephyr_ray.data.tokenized_unpaired import tokenize_rows
from zephyr_ray.data.unpaired import Origins, to_unpaired
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import UNPAIRED, Dropped, Reason
from zephyr_ray.serving.gateway.feedback import row as feedback_row

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "yes"}


def answers(raw: dict[str, Any], **rule: Any) -> list[tuple[str, bool]]:
    found = unpaired(raw, Rule(**rule))
    return [(row["completion"][0]["content"], row["label"]) for row in found if not isinstance(row, Dropped)]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"prompt": "Q", "completion": "yes", "label": True}, [("yes", True)]),
        ({"prompt": [Q], "completion": [A], "label": False}, [("yes", False)]),
        (feedback_row(thumb(1, "up")), [("Yes", True)]),
        (feedback_row(thumb(1, "down")), [("Yes", False)]),
        (feedback_row(choice(1, choice=1)), [("No", True), ("Yes", False)]),
        ({"prompt": "Q", "chosen": "yes", "rejected": "no"}, [("yes", True), ("no", False)]),
    ],
)
def test_a_row_is_one_answer_or_two(raw: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    assert answers(raw) == expected


def test_an_answer_is_the_same_row_from_wherever_it_comes() -> None:
    one, _ = unpaired({"prompt": "Q", "chosen": "yes", "rejected": "no"}, Rule())
    (other,) = unpaired({"prompt": [Q], "completion": [A], "label": True, "more": None}, Rule())
    (bad,) = unpaired({"prompt": [Q], "completion": [A], "label": False}, Rule())
    assert one == other
    assert not isinstance(other, Dropped)
    assert not isinstance(bad, Dropped)
    assert bad["completion_id"] != other["completion_id"]


@pytest.mark.parametrize(
    ("reason", "raw"),
    [
        (Reason.TIE, feedback_row(choice(1, choice="tie"))),
        (Reason.UNKNOWN_LAYOUT, {"prompt": "Q", "completion": "yes", "label": "good"}),
        (Reason.UNKNOWN_LAYOUT, {"prompt": "Q", "completion": "yes", "label": 1}),
        (Reason.UNKNOWN_LAYOUT, {"completion": "yes", "label": True}),
        (Reason.UNKNOWN_LAYOUT, {"prompt": "Q", "completion": "yes"}),
        (Reason.EMPTY, {"prompt": "Q", "completion": " ", "label": True}),
        (Reason.WRONG_ROLES, {"prompt": "Q", "completion": [Q], "label": True}),
        (Reason.IDENTICAL_PAIR, {"prompt": "Q", "chosen": "yes", "rejected": "yes"}),
        (Reason.UNKNOWN_LAYOUT, {"chosen": None, "rejected": "no"}),
        (Reason.UNKNOWN_LAYOUT, {"prompt": "Q", "completion": None, "label": True}),
    ],
)
def test_what_is_no_labelled_answer_is_dropped(reason: Reason, raw: dict[str, Any]) -> None:
    with pytest.raises(Dropped) as caught:
        unpaired(raw, Rule())
    assert caught.value.reason == reason


def test_a_cut_answer_does_not_teach_to_end(byte_tokenizer: str) -> None:
    """Its tokens are those of the other one without the end of the sequence, which is 2, and what follows."""
    raw = {"prompt": "Q", "chosen": "yes", "rejected": "no", "rejected_cut": False}
    given = pa.table({"source": ["f:1", "f:2"], "row": [raw | {"chosen_cut": cut} for cut in (False, True)]})
    batch = to_unpaired(given, rule=Rule())[0].select(UNPAIRED.names)
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat())
    whole, _, cut, _ = tokenize_rows(batch, source=source, section=Tokenized()).to_pylist()
    assert 2 in whole["completion_ids"]
    assert cut["completion_ids"] == whole["completion_ids"][: whole["completion_ids"].index(2)]
    assert cut["prompt_ids"] == whole["prompt_ids"]


def test_of_several_pairs_of_a_prompt_each_answer_is_kept_once_by_label() -> None:
    """Scores 8, 5 and 2: the middle one is better than one and worse than another."""
    scored = [{"model": "m", "content": str(score), "overall_score": score} for score in (8.0, 5.0, 2.0)]
    found = answers({"prompt": "Q", "completions": scored}, rejected="every_pair")
    assert sorted(found) == [("2.0", False), ("5.0", False), ("5.0", True), ("8.0", True)]


def test_every_row_is_accounted_for() -> None:
    given = [
        {"prompt": "Q", "completion": "yes", "label": True},
        {"prompt": "Q", "chosen": "yes", "rejected": "no"},
        {"prompt": "Q"},
        judgment(1) | {"replies": []},
    ]
    lines = [[f"f:{number}", row] for number, row in enumerate(given, 1)]
    tables = [to_unpaired(pa.table({"source": [source], "row": [row]}), rule=Rule()) for source, row in lines]
    rows = [row for table, _ in tables for row in table.to_pylist()]
    assert [row["source"] for row in rows] == ["f:1", "f:2/1", "f:2/2", "f:3", "f:4/1", "f:4/2"]
    assert [row["reason"] for row in rows if row["reason"]] == ["unknown_layout"]
    total = Origins()
    for _, origins in tables:
        total.add(origins)
    assert total == Origins(single_answers=1, pairs=2)
