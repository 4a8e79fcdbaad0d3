"""The words of a text as they are compared: what looks the same, or differs by marks, case or markup alone, is one.

A character is folded by itself, with a table that grows as characters occur, so a text costs one pass at C's speed:

    compatibility and case     full width, ligatures, mathematical letters (NFKD, case folding)
    marks                      accents, Arabic and Hebrew vowel points, composed or not; signs of Indic scripts stay
    what is not seen           soft hyphens, zero-width characters, variation selectors
    look-alikes                letters that are drawn like a Latin one, after Unicode's confusables (UTS 39): Cyrillic,
                               Greek and Armenian ones, Latin small capitals, and Latin ones with a stroke or a hook
    within a word              apostrophes and quotes, hyphens, Markdown's marks; commas between digits

Everything else that is no letter or digit separates words. In a script without spaces between words (Chinese, Japanese,
Thai, Lao, Burmese, Khmer) each letter is a word.
"""

from __future__ import annotations

import html
import re
import unicodedata

_DROPPED = frozenset("'`\u00b4\u02b9\u02bb\u02bc\u02c8\u055a\u2018\u2019\u201b\u2032\ua78c-\u2010\u2011*~\u0640")
"""Apostrophes and single quotes, hyphens, marks of Markdown, and the stroke that lengthens Arabic words."""
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters without a shape that are no format characters (category Cf)."""
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
_INDIC_SIGNS = (0, 9)
"""Combining classes of vowel signs and of viramas: marks that are letters of their own to a reader."""
_SHAPED_LIKE = {
    "авсԁеҽһніӏјкморԛгѕтѵѡԝхуүь": "abcdeehhiljkmopqrstvwwxyyb",  # Cyrillic
    "αβγεζηικμνορτυχωϲϳ": "abyeznikmvoptuxwcj",  # Greek
    "աքցհոռօգզստ": "wfghnnoqqus",  # Armenian
    "ɑɡıɩɪʏ": "agiiiy",  # Latin
}
_LOOKALIKES = {
    letter: latin for letters, latins in _SHAPED_LIKE.items() for letter, latin in zip(letters, latins, strict=True)
}
_LATIN_VARIANT = re.compile(r"LATIN (?:LETTER SMALL CAPITAL|SMALL LETTER) ([A-Z])(?: WITH .*)?")
_GREEK_CAPITALS = re.compile("[\u0397\u039d\u03a5](?=[a-zA-Z])|(?<=[a-zA-Z])[\u0397\u039d\u03a5](?![\u0300-\u036f])")
"""Those that look like another Latin letter than their small ones do, beside a Latin letter; in decomposed text."""
_AS_LATIN = {"\u0397": "H", "\u039d": "N", "\u03a5": "Y"}
_COMMA_IN_NUMBER = re.compile(r",(?<=\d,)(?=\d{3})")


class _Table(dict[int, str | None]):
    """The folded form of each character, by its code, made when it is first asked for. None drops it, at C's speed."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
        self[code] = None if char in _DROPPED else "".join(map(_folded, folded)) or None
        return self[code]


_TABLE = _Table()


def words_of(text: str) -> list[str]:
    """The words of a text, folded."""
    if "&" in text:
        text = html.unescape(text)
    if "," in text:
        text = _COMMA_IN_NUMBER.sub("", text)
    if not text.isascii() and any(letter in text for letter in _AS_LATIN):
        text = _GREEK_CAPITALS.sub(lambda found: _AS_LATIN[found[0]], unicodedata.normalize("NFD", text))
    return text.translate(_TABLE).split()


def _folded(char: str) -> str:
    """A character that is decomposed and in lower case -> letters, nothing, or a space."""
    category = unicodedata.category(char)
    if char in _DROPPED or category in ("Cf", "Cs") or _UNSEEN.match(char):
        return ""
    if category[0] == "M":
        return char if unicodedata.combining(char) in _INDIC_SIGNS and not _UNSPACED.match(char) else ""
    if category[0] not in "LN":
        return " "
    if _UNSPACED.match(char):
        return f" {char} "
    if variant := _LATIN_VARIANT.fullmatch(unicodedata.name(char, "")):
        return variant[1].lower()
    return _LOOKALIKES.get(char, char)
