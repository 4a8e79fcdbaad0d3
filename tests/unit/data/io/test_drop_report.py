"""What the dataset doctor tells a person and a manifest, and the rows it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from zephyr_ray.data.io import drop_report
from zephyr_ray.data.io.writer import Report
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run


def stat(total: int, nonzero: int) -> dict[str, float]:
    return {
        "count": 8,
        "sum": total,
        "nonzero": nonzero,
        "mean": 1,
        "min": 0,
        "p50": 1,
        "p90": 2,
        "p99": 3,
        "max": 1234,
    }


REPORT = Report(
    rows_in=1_200,
    rows_out=900,
    dropped={"wrong_roles": 5, "tie": 250, "not_text": 15, "empty": 30},
    files={"data/000000-000.parquet": 900},
    stats={"prompt_tokens": stat(600, 8), "chosen_tokens": stat(300, 8), "chosen_truncated": stat(100, 2)},
)


def test_what_a_person_sees() -> None:
    assert drop_report.lines(REPORT) == [
        "1,200 rows in = 900 kept + 300 dropped",
        "  dropped tie: 250",
        "  dropped empty: 30",
        "  dropped not_text: 15",
        "  dropped wrong_roles: 5",
        "  prompt tokens: p50 1  p90 2  p99 3  max 1,234",
        "  chosen tokens: p50 1  p90 2  p99 3  max 1,234",
        "  tokens cut off: 10.00% (chosen truncated in 2 rows)",
    ]
    assert drop_report.truncated_share(Report()) is None


def test_the_manifest() -> None:
    made = drop_report.manifest(REPORT)
    assert made["counts"] == {"in": 1200, "out": 900, "dropped": REPORT.dropped}
    assert made["files"] == [{"name": "data/000000-000.parquet", "rows": 900}]
    assert made["stats"] == REPORT.stats


def test_too_many_dropped(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("preferences")
    drop_report.check(REPORT, 0.25, artifact)  # 300 of 1,200 is not more than a quarter
    with pytest.raises(UserError) as caught:
        drop_report.check(REPORT, 0.2499, artifact)
    assert str(caught.value) == (
        "preferences: 300 of 1,200 rows dropped (250 tie, 30 empty, 15 not_text), more than max_dropped=0.2499 allows; "
        f"they lie in {tmp_path}/preferences/dropped with their sources"
    )


def test_nothing_left(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("preferences")
    with pytest.raises(UserError, match=r"2 of 2 rows dropped \(2 tie\), no row is left"):
        drop_report.check(Report(rows_in=2, dropped={"tie": 2}), 1.0, artifact)
    with pytest.raises(UserError, match="preferences: the data has no rows"):
        drop_report.check(Report(), 1.0, artifact)
