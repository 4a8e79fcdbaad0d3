"""What is counted of judgments while they are written: kept rows alone, in any partition."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.data.test_preferences import judgment
from zephyr_ray.data.judgments import AgreementTally, _count, _counted, to_rows
from zephyr_ray.judging.pool import JUDGED


def judged(number: int, failure: str | None = None) -> dict[str, Any]:
    """Answers that two judges rate: each its own way."""
    row = judgment(number)
    for completion in row["completions"]:
        (opinion,) = completion["opinions"]
        other = opinion | {"judge": "k", "rating": None if opinion["rating"] is None else 11 - opinion["rating"]}
        completion["opinions"] = [opinion, other]
    return row | {"failure": failure}


def test_kept_rows_are_counted_as_they_are_written() -> None:
    rows = [judged(number) for number in range(1, 5)]
    lost = [judged(7, "failed")]
    table, tally = _counted(to_rows(pa.Table.from_pylist([*rows, *lost], schema=JUDGED)))
    assert table["reason"].to_pylist() == [None] * 4 + ["request_failed"]
    overall = tally.result()["judges"]["overall"]
    assert overall["pairs"] == 4 * 3  # of three rated answers each
    assert overall["same_order"] == 0.0
    first, second = _count(table.slice(0, 1)), _count(table.slice(1, 3))
    first.add(second)
    assert first.result()["judges"] == tally.result()["judges"]
    assert first.result()["disagreement"] == pytest.approx(tally.result()["disagreement"])
    assert AgreementTally().result()["judges"] == {}
