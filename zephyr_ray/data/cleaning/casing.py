"""Restore the capitals that turns of the assistant lost.

Some turns of UltraChat were cut at the front and put through `str.capitalize`: "I cannot predict the future. however,
i can ..." has no capital after the first, neither in names nor in acronyms. Such a turn gets the capitals of sentences,
of "I", and of the names that the rest of its dialogue and the corpus (`case_lexicon.py`) write with them. Other turns
get the capitals of single sentences and of "I".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zephyr_ray.data.cleaning import case_names, case_text
from zephyr_ray.data.cleaning.case_lexicon import CaseLexicon, count_texts, is_well_cased
from zephyr_ray.data.cleaning.case_names import Nearby
from zephyr_ray.data.formats.messages import Message

_LOWER_LINE = re.compile(
    r"[.?!:][\"'”’)*]*[ \t]*\n[ \t]*\n+[a-z]\w* \w"
    r"|\n[ \t]*\d+[.)] [a-z]\S*(?: \S+){2}[^\n]*(?:[.:] |:\n)|:[ \t]*\n[ \t]*\n[ \t]*\d+[.)] [a-z]\S* \S"
)
"""In lower case, a paragraph after another one, a numbered item with a sentence in it, or a list that is set apart."""
_LOWER_VERSES = re.compile(r"[^\n]+(?:\n+[a-z'‘’]\S*(?: \S+){2,7}[ \t]*){4}")
"""At the beginning of a text four lines of a few words, none of them an item of a list."""
_A_SENTENCE = 8
"""Words of a text that says which language it is in."""
_USUAL = frozenset(
    ["the", "of", "and", "to", "in", "is", "are", "it", "for", "that", "this", "with", "was", "by", "as", "you", "your"]
)
_CAPITAL_WITHIN = re.compile(r"[a-z,;] [A-Z]")
_SURE = 10
"""How much more often than without a name has to be seen with a capital to give a turn away."""
_OFTEN = 20
"""How often it has to be seen with a capital if nothing else in the dialogue tells."""


def restore(messages: list[Message], lexicon: CaseLexicon) -> list[Message]:
    """The dialogue with the capitals that turns of the assistant lost; the same list if none did.

    Turns of users stay, and those of an assistant that was asked for lower case, or given a text whose names are in it.

    Args:
        messages: The dialogue.
        lexicon: Of the corpus.
    """
    suspects = [number for number, message in enumerate(messages) if _is_suspect(message)]
    if not suspects or any(_asks_for_lower(message) for message in messages):
        return messages
    nearby = Nearby(count_texts([m["content"] for m in messages if is_well_cased(m["content"])], everywhere=True))
    restored = list(messages)
    for number in suspects:
        text = messages[number]["content"]
        if is_wrongly_cased(text, lexicon, nearby, messages[:number]):
            text = case_names.restore(text, lexicon, nearby)
        restored[number] = messages[number] | {"content": with_single_starts(text)}
    return messages if restored == messages else restored


def is_wrongly_cased(text: str, lexicon: CaseLexicon, nearby: Nearby, before: Sequence[Message]) -> bool:
    """Whether a text that has no capital after its first character should have some.

    A sentence after the first, "I", a paragraph, a list that is set apart, verses or a name in lower case give it away;
    only sentences and "I" do where the user wrote names in lower case. A text whose first letter is in lower case is
    written so on purpose; where it begins with none (1. or a quotation mark), sentences, "I" and two names count.

    Args:
        text: Of a turn.
        lexicon: Of the corpus.
        nearby: Of the well-cased turns of the same dialogue.
        before: The turns before it.
    """
    if not case_text.is_lower(text):
        return False
    bare = _without_code(text)
    if case_text.LOWER_START.search(bare):
        return True
    if _given_in_lower(before, lexicon):
        return False
    if text.lstrip()[0].isupper():
        is_verse = _LOWER_VERSES.match(bare) is not None
        return is_verse or _LOWER_LINE.search(bare) is not None or len(_names(bare, lexicon, nearby)) > 0
    return len(_names(bare, lexicon, nearby)) > 1


def with_single_starts(text: str) -> str:
    """The text with capitals where single sentences start in lower case (`case_text.single_starts`)."""
    places = sorted(set(case_text.single_starts(text)))
    pieces, done = [], 0
    for place in places:
        pieces += [text[done:place], text[place].upper()]
        done = place + 1
    return "".join([*pieces, text[done:]])


def _is_suspect(message: Message) -> bool:
    text = message["content"]
    if message["role"] != "assistant" or not text:
        return False
    return case_text.is_lower(text) or next(case_text.single_starts(text), None) is not None


def _without_code(text: str) -> str:
    for start, end in reversed(case_text.code_spans(text)):
        text = f"{text[:start]}0{text[end:]}"
    return text


def _names(text: str, lexicon: CaseLexicon, nearby: Nearby) -> set[str]:
    """Words of a text in lower case that are surely names. None are in a line without any usual word of English, since
    what is a name in English may be a word of another language."""
    words = case_text.WORD.findall(text)
    if len(words) >= _A_SENTENCE and "\n" not in text and _USUAL.isdisjoint(words):
        return set()
    return {word for word in words if len(word) > 3 and _is_name(word, lexicon, nearby)}


def _is_name(word: str, lexicon: CaseLexicon, nearby: Nearby) -> bool:
    cased = lexicon.words.get(word)
    lower, capital = nearby.counts(word)
    if cased is None:
        return capital > lower
    if capital > 0 and lower == 0 and cased.capital > cased.lower:
        return True
    return _is_often_a_name(word, lexicon)


def _given_in_lower(before: Sequence[Message], lexicon: CaseLexicon) -> bool:
    """Whether the user wrote names in lower case, more of them than with a capital; a single one in a text without any
    capital within a sentence."""
    texts = [message["content"] for message in before if message["role"] != "assistant"]
    names = {word for text in texts for word in case_text.WORD.findall(text) if _is_often_a_name(word.lower(), lexicon)}
    lower = sum(name.islower() for name in names)
    return 2 * lower > len(names) and (lower >= 2 or not any(map(_CAPITAL_WITHIN.search, texts)))


def _is_often_a_name(word: str, lexicon: CaseLexicon) -> bool:
    cased = lexicon.words.get(word)
    return cased is not None and cased.capital >= max(_OFTEN, _SURE * (1 + cased.lower))


def _asks_for_lower(message: Message) -> bool:
    return message["role"] != "assistant" and case_text.asks_for_lower(message["content"])
