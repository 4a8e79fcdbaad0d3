"""What a server or a file says cannot drive a terminal."""

from __future__ import annotations

import pytest

from zephyr_ray.pipeline.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, \u00fc, \u4e2d\u6587, \U0001f469\u200d\U0001f680, two\nlines\tand a tab", None),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("10 %\r100 %\x08\x7f", r"10 %\r100 %\x08\x7f"),
        ("\x9b31m red", r"\x9b31m red"),  # CSI in one character
        ("abc\u202etxt.exe\u2066", r"abc\u202etxt.exe\u2066"),  # the other direction
        ("half \ud83d", r"half \ud83d"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_control_characters_are_spelled_out(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
