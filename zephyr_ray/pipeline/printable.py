"""Text for a terminal that other people's servers and files may have written."""

from __future__ import annotations

import unicodedata

_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of what is no glyph: escapes, text direction ...
_HARMLESS = "\n\t\u200c\u200d"  # the last two join letters and emojis


def printable(text: str) -> str:
    """The text with its control characters spelled out (`\\x1b`): whatever a server or a file says, it cannot drive a
    terminal. Line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(_spelled(each) if unicodedata.category(each) in _CONTROL else each for each in text)


def _spelled(character: str) -> str:
    return character if character in _HARMLESS else character.encode("unicode_escape").decode()
