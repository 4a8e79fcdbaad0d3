"""Places in the box of a chart, by hand."""

from __future__ import annotations

from zephyr_ray.reporting.charts import forests, line_chart, radar
from zephyr_ray.reporting.evaluations import Estimate


def test_lines_lie_between_the_lowest_and_the_highest_value() -> None:
    """The box is 600 by 170, and the highest value is at its top, which is 0."""
    chart = line_chart("Loss", "nats", "step", [("a", [(0, 2.0), (5, 0.0), (10, -2.0)]), ("none", [])])
    assert chart is not None
    assert chart.lines[0].points == "0.0,0.0 300.0,85.0 600.0,170.0"
    assert chart.zero == 85.0
    assert [line.name for line in chart.lines] == ["a"]
    assert chart.table[0] == ("0", ["2"])
    assert chart.table[-1] == ("10", ["-2"])


def test_a_single_value_is_a_level_line() -> None:
    chart = line_chart("Loss", "nats", "step", [("a", [(7, 3.0)])])
    assert chart is not None
    assert chart.lines[0].points == "0,85.0 600,85.0"
    assert line_chart("Loss", "nats", "step", []) is None


def test_a_chart_has_bounded_tables() -> None:
    chart = line_chart("Loss", "nats", "step", [("a", [(n, float(n)) for n in range(1000)])])
    assert chart is not None
    assert len(chart.table) <= 26
    assert chart.table[-1] == ("999", ["999"])


def test_a_radar_needs_three_categories() -> None:
    """The first spoke points up; 10 of 10 is at the rim, 100 from the centre."""
    drawn = radar({"m": {"a": 10.0, "b": 5.0, "c": 0.0, "d": 10.0}})
    assert drawn is not None
    assert drawn.polygons[0].points == "0.0,-100.0 50.0,0.0 0.0,0.0 -100.0,0.0"
    assert radar({"m": {"a": 1.0, "b": 2.0}}) is None


def test_intervals_on_one_scale() -> None:
    share = Estimate("e", "rate", 0.5, 0.4, 0.6, "m", is_share=True)
    difference = Estimate("e", "a minus b", 0.1, -0.1, 0.3, neutral=0.0, is_share=True)
    shares, differences = forests([share, difference])
    assert (shares.bars[0].left, shares.bars[0].width, shares.bars[0].dot) == (40.0, 20.0, 50.0)
    assert (differences.bars[0].left, differences.bars[0].width, differences.neutral) == (0.0, 100.0, 25.0)
