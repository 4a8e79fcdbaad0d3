"""Which spellings of a word are the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.cleaning.folded_words import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don\u2019t  STOP, mail_me\n2x!", "dont stop mail me 2x"),
        ("you're you\u2018re you\u02bcre you`re you\u00b4re \uff07you", "youre youre youre youre youre you"),
        (
            "Stra\u00dfe CAF\u00c9 cafe\u0301 cafe \u0141\u00f3d\u017a \u00d8l \u0131\u015f\u0131k",
            "strasse cafe cafe cafe lodz ol isik",
        ),
        ("water\u00admelon wa\u200bter\u2060melon water-melon water\u2010melon **water**melon", "watermelon " * 5),
        (
            "\uff57\uff41\uff54\uff45\uff52 "
            "\U0001d430\U0001d41a\U0001d42d\U0001d41e\U0001d42b \u1d21\u1d00\u1d1b\u1d07\u0280",
            "water " * 3,
        ),
        ("h\u0430pp\u0435ns \u03bfri\u03bfn \u039dew \u0421\u0410\u0422 \u057f\u0585", "happens orion new cat so"),
        ("1,000,000 eggs,milk 1,2 a&nbsp;b a\u00a0b", "1000000 eggs milk 1 2 a b a b"),
        ("\u4f60\u597d\uff01 \u304b\u3099\u304c", "\u4f60 \u597d \u304b \u304b"),
        ("\u0e1f\u0e49\u0e32", "\u0e1f \u0e32"),  # Thai: its tone mark is no letter
        ("\u0906\u0915\u093e\u0936 \u0928\u0940\u0932\u093e", "\u0906\u0915\u093e\u0936 \u0928\u0940\u0932\u093e"),
        ("\u0645\u064e\u0627 \u0647\u0650\u064a\u064e", "\u0645\u0627 \u0647\u064a"),
        (
            "\u0412\u041e\u0414\u0410 \u039d\u0395\u03a1\u039f",
            " ".join(words_of("\u0432\u043e\u0434\u0430 \u03bd\u03b5\u03c1\u03bf")),
        ),
        ("-- * ... \u00a0 \u2014", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert words_of(text) == words.split()


@given(st.text())
def test_composition_does_not_matter(text: str) -> None:
    assert words_of(unicodedata.normalize("NFC", text)) == words_of(unicodedata.normalize("NFD", text))


@given(st.text(st.characters(codec="ascii", exclude_characters="&,")))
def test_ascii_is_divided_at_what_is_no_letter_or_digit(text: str) -> None:
    kept = "".join(char for char in text.lower() if char not in "'`*~-")
    assert words_of(text) == "".join(char if char.isalnum() else " " for char in kept).split()
