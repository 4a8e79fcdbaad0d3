"""The form of answers: what counts as a list, bold text or a heading, and how often texts begin alike."""

from __future__ import annotations

import pytest

from zephyr_ray.reporting.text_form import form, gaps, openings


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("- one\n- two", {"lists"}),
        ("First:\n1. one\n\n2) two", {"lists"}),
        ("- one alone", set()),
        ("2020. It was -3 degrees\nand 4.5 metres", set()),
        ("so **very** bold", {"bold"}),
        ("2 ** 3 ** 4\n* not", set()),
        ("# Title\ntext", {"headings"}),
        ("#hashtag and C# code", set()),
    ],
)
def test_marks(text: str, marks: set[str]) -> None:
    assert {name for name, count in form([text]).marked.items() if count} == marks


def test_counts_and_openings() -> None:
    found = form(["Sure, here it is: 1", "sure! Here it goes", "No."])
    assert (found.texts, found.characters) == (3, 40)
    assert found.openings == {"sure here it": 2, "no": 1}
    assert openings([found, form(["No."])]) == [("sure here it", [2 / 3, 0.0]), ("no", [1 / 3, 1.0])]


def test_gaps_need_texts_on_both_sides() -> None:
    assert gaps(form([]), form(["a"])) == gaps(form(["a"]), form([])) == []
    opening = gaps(form(["Sure, here it is"]), form(["No."]))[-1]
    assert (opening.what, opening.value) == ("the opening \u201csure here it\u201d", 1.0)
