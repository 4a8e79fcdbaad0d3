"""The page: its numbers, that nothing in it is anybody's markup, and that it loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.pages import Page
from tests.unit.data.test_preference_counts import pairs, seen
from zephyr_ray.config.data import Preferences
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.preference_counts import AnswerCounts, PairCounts, count_pairs
from zephyr_ray.data.preferences_report import picture, render, write_report
from zephyr_ray.data.report_page import short
from zephyr_ray.pipeline.artifacts import Run

EVIL = "<script>alert('x')</script>\"&"


def page(report: Report, answers: AnswerCounts, kept: PairCounts, agreement: Any = None, **section: Any) -> Page:
    return Page(render(picture(Preferences(**{"train": "pairs.jsonl"} | section), report, answers, kept, agreement)))


def judged() -> tuple[Report, AnswerCounts, PairCounts]:
    answers = seen({EVIL: 9, "b": 3}, {EVIL: 2, "b": 2}, {EVIL: 4, "b": 8}, ratings={EVIL: 4.0})
    answers.rows = 4
    kept = count_pairs(pairs((10, 4, 9, 3), models=(EVIL, "b")))
    kept.add(count_pairs(pairs((10, 14, 8, 4), models=("b", EVIL))))
    return Report(rows_in=4, rows_out=2, dropped={"tie": 1, "empty": 1}, noted={"drawn_among_best": 3}), answers, kept


def test_the_numbers_are_on_the_page() -> None:
    shown = page(*judged()).text
    for phrase in (
        "4 rows = 2 kept + 2 dropped",
        "drawn among best 3",
        "tie 1 25.0 %",
        "overall_score (3 rows)",
        "mean 5.00",  # 9, 2, 4
        "mean 4.33",  # 3, 2, 8
        "33 % = 33 %",
        "1 / 1",
        "Chosen is longer 50.0 % of pairs",
    ):
        assert phrase in shown, phrase


def test_texts_of_the_data_are_text_and_nothing_is_loaded() -> None:
    made = page(*judged(), agreement={EVIL: {EVIL: 0.5}, "kappa": EVIL}, train=EVIL)
    made.check_loads_nothing()
    assert made.text.count(EVIL) >= 6


def test_pairs_without_scores_show_what_is_known() -> None:
    kept = count_pairs(
        pairs((10, 4, None, None))
        .drop(["chosen_model", "rejected_model"])
        .append_column("chosen_model", [[None]])
        .append_column("rejected_model", [[None]])
    )
    shown = page(Report(rows_in=1, rows_out=1), AnswerCounts(rows=1), kept).text
    assert "Who beats whom" not in shown
    assert "Scores" not in shown
    assert "no scores" in shown
    assert "Chosen is longer 100.0 % of pairs" in shown
    assert "How far the judges agree" not in shown


def test_nothing_kept_is_a_page_too(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("preferences")
    Path(artifact.path).mkdir()
    report = Report(rows_in=3, dropped={"tie": 3})
    assert write_report(artifact, Preferences(train="pairs.jsonl"), report, AnswerCounts(rows=3), PairCounts()) == [
        "report.html",
        "report.png",
    ]
    assert "3 rows = 0 kept + 3 dropped" in Page((tmp_path / "preferences" / "report.html").read_text()).text


def test_both_files_are_written(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("preferences")
    Path(artifact.path).mkdir()
    report, answers, kept = judged()
    write_report(
        artifact,
        Preferences(train="pairs.jsonl", rejected="every_pair", margin=1.0),
        report,
        answers,
        kept,
        {"kappa": 0.5},
    )
    png = (tmp_path / "preferences" / "report.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(png[16:20], "big") == 1540  # pixels wide
    shown = Page((tmp_path / "preferences" / "report.html").read_text()).text
    assert "every two answers with different scores by the overall score, more than 1 apart" in shown
    assert "kappa 0.50" in shown


@pytest.mark.parametrize(
    ("number", "shown"), [(1234.5, "1,234"), (3, "3"), (0.25, "0.25"), (2.0, "2"), (-1500, "-1,500")]
)
def test_short(number: float, shown: str) -> None:
    assert short(number) == shown
