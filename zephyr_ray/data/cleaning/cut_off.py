"""Tell an answer that was cut off, as by a limit on tokens, from one that ends without a full stop.

Precision comes first: lists, poems, code, tables, titles, addresses, hashtags, signatures and answers of a few words
end without one too. So an answer is cut off where something stays open (a fence of code, a page of HTML, a bracket, an
equation), or where its last line is a sentence of a text whose other sentences do end, is a bare mark of a list, or
stops at a comma or at a word that ends none ("and", "the").
"""

from __future__ import annotations

import re

LONG = 300
"""Characters from which on a missing full stop says something: limits on tokens cut long answers."""
LONG_LINE = 40
_NO_VERSE = 60
"""Characters of a line that is none of a poem."""

_FENCE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?```", re.MULTILINE)
_ENDS_NO_SENTENCE = re.compile(
    r"(?<=[a-z,;] )(?:the|an|and|or|but|because|whether|your|their|our|its|my|every|such as|as well as|in order to|a)$"
)
_SELDOM_LAST = re.compile(
    r"(?<=[a-z,;] )(?:to|of|in|on|at|for|with|by|from|about|as|into|than|if|when|while|where|which|who|that|this|these"
    r"|is|are|was|were|be|been|being|has|have|had|will|would|can|could|may|might|must|should|not|no|some|any|other|more"
    r"|most|also|very|using|including|between|during|through|over|you|they|he|she|we|it)$"
)
"""Words that may end a sentence and seldom do."""
_NEVER_LAST = re.compile(
    r"(?<=[a-z,;] )(?:of|with|from|as|than|if|when|while|where|which|who|is|are|was|were|be|has|will|would|can|could"
    r"|may|might|must|should|to|into|using|including|between|during|through|require|requires|provides|makes)$"
)
_HALF_A_WORD = re.compile(
    r"(?:^|\s)(?:it|that|there|here|what|let|he|she|you|they|we|I|don|doesn|isn|can|won)['\u2019]$", re.IGNORECASE
)
_HEAD_OF_ITEM = re.compile(r"[ \t]*\d{1,2}[.)] .*:")
_HEADS = re.compile(r"^[ \t]*\d{1,2}[.)] [^\n]*:[ \t]*\n+[ \t]*\S", re.MULTILINE)
"""An item that only says what is in the lines below it."""
_BARE_START = re.compile(r"[a-z]{4}[.!?][\"'\u2019\u201d)]*[ \t]+[A-Z][a-z]*$")
"""A sentence of which only the first word is there."""
_BARE_MARK = re.compile(r"[ \t]*([-*+\u2022])")
_PAGE = re.compile(r"^[ \t]*<html\b", re.MULTILINE | re.IGNORECASE)
_SMILEY = re.compile(r"[:;]['-]?\(")
_COMMENT = re.compile(r"[ \t]*(?:#+|//|--|/\*)[ \t]")
_LIST_MARK = re.compile(r"[ \t]*(?:[-*+\u2022]|\(?\d{1,3}[.):]|\(?[A-Za-z][.)])[ \t]+")
_BARE_NUMBER = re.compile(r"[ \t]*(\d{1,2})[.)]?")
_SENTENCE_END = re.compile(r"[a-z)\d%][.!?][\"'\u2019\u201d)]*[ \t]+(?=[A-Z\"'\u2018\u201c(])")
_SPEAKER = re.compile(r"[A-Z][\w' ]{0,24}: ")
"""The beginning of a line in a chat or a play, where people end sentences as they like."""
_ENDED = re.compile(r"[.!?:][\"'\u2019\u201d)*_]*$")
_LAST_WORD = re.compile(r"(?:^|[\s(\"'\u201c\u2018-])([a-z]+(?:['\u2019][a-z]+)?)(,?)$")
_QUOTED_OR_TAGGED = re.compile(r"(?:^|\s)#\w|\s[-\u2013\u2014]{1,2}\s|https?:|\||[={}<>\\]|\t")


def cut_off(answer: str) -> str | None:
    """The last words of an answer that was cut off; None if it was not.

    Args:
        answer: An assistant's turn.
    """
    text = answer.rstrip()
    before, _, last = text.rpartition("\n")
    if _is_left_open(text, before, last):
        return text[-200:]
    if not text or not (text[-1].islower() or text[-1] == ",") or _COMMENT.match(last):
        return None
    item = _LIST_MARK.match(last)
    line = last[item.end() :] if item else last
    if _QUOTED_OR_TAGGED.search(line):
        return None
    if len(text) >= 2 * LONG_LINE and " " in line and _ENDS_NO_SENTENCE.search(line):
        return last[-200:]
    is_said = item is None and _SPEAKER.match(line) is not None
    return (
        last[-200:]
        if len(text) >= LONG and not is_said and _stops_within(before, line, is_item=item is not None)
        else None
    )


def _is_left_open(text: str, before: str, last: str) -> bool:
    """Whether a text ends within code, a page, a bracket, an equation or a word, or right after the mark of an item."""
    if text.count("```") % 2 and len(_FENCE.findall(text)) % 2:
        return True
    if len(text) < LONG:
        return False
    if (number := _BARE_NUMBER.fullmatch(last)) and _has_item(before, int(number[1]) - 1):
        return True
    if (mark := _BARE_MARK.fullmatch(last)) and f"\n{mark[1]} " in before:
        return True
    if _HEAD_OF_ITEM.fullmatch(last) and _HEADS.search(before):
        return True
    if text[-1] not in ".!?:" and _PAGE.search(text) and "</html" not in text.lower():
        return True
    if text[-1] == "=" and "=\n" not in f"{before}\n".replace(" ", ""):
        return True
    opened = _SMILEY.sub("", last)
    if (text[-1].isalnum() or text[-1] == ",") and opened.count("(") > opened.count(")") and "]" not in opened:
        return True
    return _HALF_A_WORD.search(last) is not None and _others_end(before, is_item=_LIST_MARK.match(last) is not None)


def _stops_within(before: str, line: str, *, is_item: bool) -> bool:
    """Whether a line of a long text that ends in a small letter or a comma is not all that was to be said."""
    if len(line) < LONG_LINE:
        return _SELDOM_LAST.search(line) is not None and _others_end(before, is_item=is_item)
    if line[-1] == ",":
        return not line[-2].isspace()
    if not _LAST_WORD.search(line):
        return is_item and _BARE_START.search(line) is not None
    if _SENTENCE_END.search(line) or (line[0].isupper() and len(line) >= _NO_VERSE and _NEVER_LAST.search(line)):
        return True
    return _others_end(before, is_item=is_item)


def _has_item(before: str, number: int) -> bool:
    """Whether a line of a text begins with a number as in a list."""
    return re.search(rf"^[ \t]*{number}[.)] ", before, re.MULTILINE) is not None


def _others_end(before: str, *, is_item: bool) -> bool:
    """Whether the long lines of the same kind, list items or paragraphs, are two at least and all end as sentences; if
    there are fewer, whether three of any kind do."""
    lines = [line.rstrip() for line in before.split("\n") if len(line) >= LONG_LINE]
    alike = [line for line in lines if (_LIST_MARK.match(line) is not None) == is_item]
    if len(alike) < 2:
        alike = lines if len(lines) >= 3 else []
    return bool(alike) and all(_ENDED.search(line) for line in alike)
