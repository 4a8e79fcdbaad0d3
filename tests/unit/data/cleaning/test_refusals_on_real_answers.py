"""How many real refusals are left out and how many answers are lost: XSTest's answers, each labelled by two people.

`pytest -s tests/unit/data/cleaning/test_refusals_on_real_answers.py` prints the figures of docs/cleaning.md.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.config.cleaning import Refusals
from zephyr_ray.data.cleaning.refusals import step
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped

REPO = Path(__file__).parents[4]
DIALOGUES = Path(os.environ.get("ZEPHYR_TEST_DATA") or REPO.parent / "shared" / "data") / "dialogues"
COMPLIES, REFUSES, PARTLY = "1_full_compliance", "2_full_refusal", "3_partial_refusal"
CLEAN = step(Refusals(type="refusals"))


def rows(name: str) -> list[dict[str, Any]]:
    path = DIALOGUES / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}; ZEPHYR_TEST_DATA names the folder of real data")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def is_left_out(row: dict[str, Any]) -> bool:
    try:
        CLEAN(exchange(row["prompt"], row["completion"]))
    except Dropped:
        return True
    return False


def shares(labelled: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """The share that is left out, by label."""
    total: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for label, is_out in labelled:
        total[label] += 1
        left_out[label] += is_out
    return {label: left_out[label] / total[label] for label in sorted(total)}


def show(name: str, found: dict[str, float]) -> None:
    print(f"{name:>24}  " + "  ".join(f"{label}: {100 * share:.1f} %" for label, share in found.items()))


def is_unread(row: dict[str, Any]) -> bool:
    """An eighth of the prompts, whose answers nobody read while the rules were written."""
    return hashlib.sha256(row["id"].encode()).digest()[0] % 8 == 7


def test_refusals_are_left_out_and_answers_stay() -> None:
    labelled = [(row, is_left_out(row)) for row in rows("xstest_completions_labelled")]
    agreed = [(row, is_out) for row, is_out in labelled if row["agreement"] == "TRUE"]
    found = shares((row["final_label"], is_out) for row, is_out in agreed)
    show("both readers agree", found)
    for reader in ("annotation_1", "annotation_2"):
        show(reader, shares((row[reader], is_out) for row, is_out in labelled))
    for model in sorted({row["model"] for row, _ in agreed}):
        show(model, shares((row["final_label"], is_out) for row, is_out in agreed if row["model"] == model))
    unread = shares((row["final_label"], is_out) for row, is_out in agreed if is_unread(row))
    show("unread prompts", unread)
    assert found[REFUSES] >= 0.90
    assert found[COMPLIES] <= 0.01
    assert unread[REFUSES] >= 0.80
    assert unread[COMPLIES] <= 0.01


def test_of_clean_dialogues_few_turns_go() -> None:
    """Dialogues of ultrachat_200k: none is left out for its humans' words, and the others stay as they are."""
    turns = [
        exchange(asked["content"], answer["content"])
        for row in rows("ultrachat_200k_sample")
        for asked, answer in zip(row["messages"][::2], row["messages"][1::2], strict=False)
    ]
    outcomes: Counter[str] = Counter()
    start = time.process_time()
    for messages in turns:
        try:
            outcomes["same" if CLEAN(messages) is messages else "a disclaimer less"] += 1
        except Dropped:
            outcomes["left out"] += 1
    print(
        f"\n{len(turns)} turns of ultrachat_200k: {dict(outcomes)}, {len(turns) / (time.process_time() - start):,.0f}/s"
    )
    assert outcomes["left out"] <= 0.02 * len(turns)
    assert outcomes["same"] >= 0.88 * len(turns)
