"""Tell text that is none: base64, long hexadecimal numbers, replacement characters, mostly symbols."""

from __future__ import annotations

import re

from zephyr_ray.data.cleaning.code_spans import prose_of

LONG_RUN = 128
"""Characters without a space from which on a run may be encoded data."""
_DATA = re.compile(r"[A-Za-z0-9+/=_-]+")
_REPLACEMENT = "\ufffd"
_RULERS = " \t\n\r-_=|+*.,:/\\~^`'\"()[]"
"""What tables, pictures and rulers are drawn with. They are no symbols here."""
_PLAIN = (_RULERS + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").encode()
_SYMBOLS = "!?#$%&@;<>{}"
_FEWEST_SYMBOLS = 40


def unreadable_part(text: str) -> str | None:
    """The part of a turn that is no text, where it makes up most of the turn; None if there is none.

    Replacement characters stand for what was lost: one in a hundred characters, or ten of them, are too many.
    """
    lost = text.count(_REPLACEMENT)
    if lost >= 10 or lost * 100 >= len(text) > 0:
        return text[max(text.find(_REPLACEMENT) - 50, 0) :]
    prose = prose_of(text)
    return _encoded_data(prose) or _mostly_symbols(prose)


def _encoded_data(prose: str) -> str | None:
    """The runs of base64 or hexadecimal digits, if they make up half of the text."""
    long = [word for word in prose.split() if len(word) >= LONG_RUN]
    if not long:
        return None
    data = [run for word in long for run in _DATA.findall(word) if len(run) >= LONG_RUN and _looks_random(run)]
    return data[0] if 2 * sum(map(len, data)) >= len(prose) else None


def _looks_random(run: str) -> bool:
    """Letters and digits mixed, as no word is, and neither a sequence of bases nor a long number."""
    digits = sum(map(str.isdigit, run))
    return digits >= len(run) // 20 and len(run) - digits >= len(run) // 20 and len(set(run)) >= 10


def _mostly_symbols(prose: str) -> str | None:
    rest = prose.encode("utf-8", "replace").translate(None, _PLAIN)
    if len(rest) < _FEWEST_SYMBOLS:
        return None
    symbols = sum(map(prose.count, _SYMBOLS))
    letters = sum(map(str.isalnum, prose)) if 2 * symbols >= _FEWEST_SYMBOLS else 0
    return prose if symbols >= _FEWEST_SYMBOLS and symbols >= 2 * letters else None
