"""Repair text that was decoded wrongly ("donâ€™t", "don&apos;t"), and normalize Unicode to NFC.

ftfy (https://ftfy.readthedocs.io) finds out how a text was decoded wrongly. What is right stays as it is written: curly
quotes, full-width letters, ligatures. In code only line breaks and characters without any meaning change.
"""

from __future__ import annotations

import html
import html.entities
import re
from collections.abc import Sequence

import ftfy

from zephyr_ray.config.cleaning import Encoding
from zephyr_ray.data.cleaning.code_spans import CODE
from zephyr_ray.data.cleaning.steps import Step
from zephyr_ray.data.formats.messages import Message

_CHARACTERS = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_encoding=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_c1_controls=False,
    normalization=None,
    explain=False,
)
"""Line breaks, surrogates, terminal escapes and control characters."""
_PROSE = _CHARACTERS._replace(fix_encoding=True, fix_c1_controls=True, normalization="NFC")
_PROSE_ON_ENCODINGS = _CHARACTERS._replace(normalization="NFC")

_SUSPECT = re.compile("[^\t\n\x20-\x7e\u2013\u2014\u2018\u2019\u201c\u201d\u2022\u2026]")
"""Anything but ASCII and the typographic marks that are right wherever no letter beyond ASCII stands beside them."""
_TIMES = 5
"""How many times in a row a text may have been decoded wrongly; it bounds the time that a text takes."""
_AMPERSAND = re.compile(r"&(?:amp;)+")
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_ON_MARKUP = re.compile(r"</?[a-z!]|\b(?:x?html5?|xml|jsx|entit(?:y|ies)|escap(?:e[ds]?|ing)|markup)\b", re.IGNORECASE)
_ON_ENCODINGS = re.compile(
    r"\b(?:mojibake|(?:byte|character|file|page|source|string|text|wrong)s?(?:'s)? (?:en|de)coding"
    r"|(?:an|my|the|this|what|which|your) encodings?|(?:en|de)coding=|(?:en|de)code\(|utf-?\d*|unicode|ascii|charsets?"
    r"|character sets?|latin-?1|iso-?8859\S*|cp-?125\d|windows-125\d)(?!\w)",
    re.IGNORECASE,
)
"""Not "decode" alone: genes, messages and feelings are decoded too."""


def step(section: Encoding) -> Step:
    """The step that a recipe's section describes."""
    return repaired


def repaired(messages: list[Message]) -> list[Message]:
    """The messages with their text as it was before it was decoded wrongly.

    In a dialogue about encodings or markup such text may be the subject: broken characters stay in the former, HTML's
    entities in the latter.
    """
    if not any(_is_suspect(message["content"]) for message in messages):
        return messages
    config = _PROSE_ON_ENCODINGS if _speak_of(_ON_ENCODINGS, messages) else _PROSE
    unescape = not _speak_of(_ON_MARKUP, messages)
    texts = [_repaired_text(message["content"], config, unescape=unescape) for message in messages]
    if all(text == message["content"] for text, message in zip(texts, messages, strict=True)):
        return messages
    return [{**message, "content": text} for text, message in zip(texts, messages, strict=True)]


def _is_suspect(text: str) -> bool:
    return _SUSPECT.search(text) is not None or ("&" in text and _ENTITY.search(text) is not None)


def _speak_of(subject: re.Pattern[str], messages: Sequence[Message]) -> bool:
    return any(subject.search(message["content"]) for message in messages)


def _repaired_text(text: str, config: ftfy.TextFixerConfig, *, unescape: bool) -> str:
    """The text, repaired until nothing is left to repair: what was decoded wrongly may have been so more than once."""
    for _ in range(_TIMES):
        better = _repaired_once(text, config, unescape=unescape) if _is_suspect(text) else text
        if better == text:
            break
        text = better
    return text


def _repaired_once(text: str, config: ftfy.TextFixerConfig, *, unescape: bool) -> str:
    pieces = CODE.split(text)
    for number in range(0, len(pieces), 2):
        prose = _ENTITY.sub(_character, _AMPERSAND.sub("&", pieces[number])) if unescape else pieces[number]
        pieces[number] = ftfy.fix_text(prose, config)
    return ftfy.fix_text("".join(pieces), _CHARACTERS)


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; the entity itself where that is nothing that a reader sees."""
    name = entity[0][1:]
    found = html.unescape(entity[0]) if name[0] == "#" else html.entities.html5.get(name, "")
    is_seen = found not in ("", "\ufffd") and (found.isprintable() or found == "\u00a0")
    return found if is_seen else entity[0]
