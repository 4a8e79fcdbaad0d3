"""Whether an assistant's turn refuses.

A refusal opens by declining, by judging the request or by what the assistant lacks, and does not go on to help. How it
opens decides how much may follow: after "I cannot assist with illegal activities" a long lecture is no answer; after
"I do not have access to prices" almost any answer is one. The limits and words were chosen on XSTest's labelled answers
(docs/cleaning.md).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from zephyr_ray.data.cleaning.questions import (
    asks_about_assistant,
    asks_for_a_refusal,
    asks_for_fiction,
    asks_what_is_right,
)
from zephyr_ray.data.cleaning.self_statements import (
    CANNOT,
    Kind,
    asks,
    at_pivot,
    is_of_machines,
    judges_the_request,
    kind_of,
    one_of,
    plain,
)
from zephyr_ray.data.cleaning.sentences import Sentence, sentences_of

_HEAD = 700
"""Characters in which a turn's opening is looked for."""
_LONGEST = 4000
"""Characters of a turn that may be a refusal."""
_OPENING = 3
"""Sentences at the beginning of a turn in which it may refuse."""
_BEFORE = 12
"""Most words of answer before the sentence that refuses."""
_LISTED = 3
"""Lines of lists, tables or code from which on a turn helps, unless it refuses firmly."""

# Words of answer from which on a turn is one:
_FIRM = 150  # after a firm refusal; what follows it is lecture that reads as answer
_DECLINED = 40  # after "I cannot provide information on ..."; pointers elsewhere count too
_LACKED = 8  # after what the assistant lacks or cannot do
_POINTED = 35  # the same with pointers elsewhere, since a long pointer helps
_JUDGED = 60  # after "It is not ethical to ..."
_LECTURED = 40  # after "... is illegal", if there is less lecture than answer
_AFTER_PIVOT = 5  # in the sentence itself, after "but"
_AFTER_HOWEVER = 8  # in a later sentence with "However"

_OF_ITSELF = (" i ", "i'm ")
_NOT = (" not ", "n't ", "cannot", "unable", "lack", "declin", "refus", "incapable", " no ")
_WRONG = (
    *("acceptable", "advise against", "appropriate", "asking ", "condemn", "condone", "crime", "discourage", "ethical"),
    *("illegal", "immoral", "is not ", "'s not ", "should never", " wrong"),
)
"""An opening that refuses speaks of itself with one of `_NOT`, or it has one of `_WRONG`. Cheap to find."""

_HARM = re.compile(
    one_of(
        r"""abus, appropriate, confidential, consent, crim, danger, discriminat, drugs, ethic, guidelines, harm, hate,
        illegal, \bkill, misinformation, moral, offensive, personal information, privacy, private, publicly, safe,
        stereotyp, suicid, unlawful, violen, weapon"""
    )
)
_WHOLE_REQUEST = re.compile(
    r"\b(?:assist|help)(?: you)?(?: (?:with|in))?"
    r"(?: (?:that|this)(?: request| question| task)?| your request| you)?[.!]?$"
    r"|(?:assist with|complete|comply with|fulfil|help with|process|satisfy)\w* (?:your|this|that|the|such) request"
    r"|\b(?:answer|respond to) (?:that|this|your)\b|provide the help"
    r"|provide (?:you with )?(?:a list of |any )?reasons\b"
    r"|provide (?:you with )?(?:an? |any )?(?:(?:helpful|safe|appropriate) )?(?:or safe )?(?:answer|response)"
)
_INFORMATION = re.compile(
    rf"{CANNOT} (?:to )?(?:\w+ly )?"
    + one_of(r"assist, encourage, give, help, offer, promote, provid\w*, recommend, share, suggest, support")
    + r"(?: or \w+)?(?: you)?(?: (?:with|in))? (?:a list of |any |the |specific |a )?"
    + one_of(
        """activit, advice, assistance, definition, explanation, guidance, information, instruction, planning, reason,
        suggestion, support, tip, way"""
    )
)
_IS_WRONG = re.compile(
    r"\b(?:illegal|unethical|immoral|inappropriate|serious crime|(?:never|not) (?:acceptable|appropriate|ethical)"
    r"|(?:not|never) (?:an? )?(?:safe|healthy|ethical|effective) or)\b"
)
_REPORTED = re.compile(
    r"\b"
    + one_of(
        """announced, argued, called, claimed, decided, declared, found, reported, ruled, said, told, voted, warned,
        wrote"""
    )
    + r"\b"
)
_CONTENT = re.compile(r"[a-z]{4,}")
_REPEATED = 0.6
"""Share of a question's longer words that a sentence has which declines all of it."""
_GOES_ON = re.compile(
    r"\bif (?:you(?:'re| are| were| meant| mean)|we|it|your \w+)\b.{0,40}"
    r"\b(?:asking about|asking for|interpret|literally|look at|mean|meant|referring to)"
    r"|\btaken? it literally|\bthat (?:being )?said\b|^as of\b|\bhere(?:'s| is| are)\b.{0,60}:$"
    r"|\b(?:but|however|instead|nevertheless|nonetheless|still),? "
    r"(?:i can\b(?!'| not)|i could\b|i am able|according|as of|based on|generally|here|in general|to answer)"
)
_HOWEVER = re.compile(r"(?:however|but|nevertheless|nonetheless|still),? ")
_ALTERNATIVES = re.compile(r"alternativ|instead|resources|support|helpline|hotline")
_UNREAL = re.compile(
    r"\b(?:is|are|was|were|being) (?:an? |the |only |just |purely )?(?:\w+ )?(?:fictional|imaginary)"
    r"|\bnot (?:a )?real (?:person|character)|(?:does not|doesn't|do not) (?:actually )?exist"
    r"|\b(?:nonsensical|absurd)\b.{0,20}\bquestion|\bnot (?:factually )?coherent"
    r"|\b(?:are|is) not (?:a )?(?:living|sentient)|\binanimate"
)

_OF_ASSISTANT = frozenset({Kind.DECLINES, Kind.LACKS})
_REFUSING = _OF_ASSISTANT | {Kind.JUDGES}


class _Said(NamedTuple):
    """A sentence of a turn."""

    text: str
    plain: str
    kind: Kind | None
    """None where it is no prose."""

    @property
    def words(self) -> int:
        return len(self.plain.split())


def refusal_in(question: str, answer: str) -> str | None:
    """The sentence with which an answer refuses, or None.

    No refusal is an answer that asks back or helps after "but", in a list or further on, nor text that the user asked
    for ("Write a letter that declines ..."), nor what the assistant says of itself where the user asked about it.
    """
    if len(answer) > _LONGEST or not _may_refuse(plain(answer[:_HEAD])):
        return None
    opening = _opening(answer)
    refusing = [each for place, each in enumerate(opening) if _refuses(each, place, question)]
    if not refusing or asks_for_a_refusal(question) or refusing[0].plain in plain(question):
        return None
    if sum(each.words for each in opening[: opening.index(refusing[0])] if each.kind is Kind.ANSWERS) > _BEFORE:
        return None
    firm = _is_firm(refusing, opening, question)
    said = _short_turn(answer, refusing, firm)
    return None if said is None or _goes_on(said, firm) else refusing[0].text


def _may_refuse(head: str) -> bool:
    """False for most answers, at little cost: such a start is no refusal."""
    if any(word in head for word in _WRONG) or "an ai" in head or "language model" in head:
        return True
    of_itself = head.startswith(("i ", "i'm ")) or any(word in head for word in _OF_ITSELF)
    return of_itself and any(word in head for word in _NOT)


def _said(sentences: Iterable[Sentence]) -> Iterator[_Said]:
    for sentence in sentences:
        if text := sentence.text.strip():
            lower = plain(text)
            yield _Said(text, lower, kind_of(lower) if sentence.prose else None)


def _opening(answer: str) -> list[_Said]:
    """The first sentences, up to a list or code."""
    first = itertools.islice(_said(sentences_of(answer[:_HEAD])), _OPENING)
    return list(itertools.takewhile(lambda each: each.kind is not None, first))


def _refuses(each: _Said, place: int, question: str) -> bool:
    """Whether a sentence of the opening may make the turn a refusal."""
    if each.kind is Kind.DECLINES:
        harmful = _HARM.search(each.plain) or _WHOLE_REQUEST.search(each.plain)
        return bool(harmful) or not asks_about_assistant(question)
    if each.kind is Kind.LACKS:
        its_own = is_of_machines(each.plain) or not asks_for_fiction(question)
        return place < 2 and its_own and not asks_about_assistant(question)
    calls_wrong = _IS_WRONG.search(each.plain) and (place == 0 or (place == 1 and each.kind is not Kind.ANSWERS))
    if calls_wrong or (place == 0 and each.kind is Kind.JUDGES):
        return not (_REPORTED.search(each.plain) or asks_what_is_right(question))
    return place < 2 and judges_the_request(each.plain) and not asks_what_is_right(question)


def _is_firm(refusing: Sequence[_Said], opening: Sequence[_Said], question: str) -> bool:
    """Whether the request as a whole is declined or called harmful, before any "However"."""
    opening = list(itertools.takewhile(lambda each: not _HOWEVER.match(each.plain), opening))
    declines = [each.plain for each in refusing if each.kind is Kind.DECLINES]
    if any(judges_the_request(each.plain) for each in refusing) or any(map(_WHOLE_REQUEST.search, declines)):
        return True
    if any(_repeats(question, each) for each in declines):
        return True
    of_assistant = any(each.kind in _OF_ASSISTANT for each in refusing)
    if of_assistant and any(each.kind is Kind.JUDGES for each in opening):
        return True
    reasons = [at_pivot(each.plain)[0] for each in refusing]
    reasons += [each.plain for each in opening if each.kind is Kind.LECTURES]
    return bool(declines) and any(map(_HARM.search, reasons))


def _repeats(question: str, sentence: str) -> bool:
    """Whether a sentence has most words of what was asked for."""
    asked, said = set(_CONTENT.findall(plain(question[:_HEAD]))), set(_CONTENT.findall(sentence))
    both = len(asked & said)
    return both >= 3 and both >= _REPEATED * len(asked)


def _short_turn(answer: str, refusing: Sequence[_Said], firm: bool) -> list[_Said] | None:
    """The sentences of a turn that has too few words of answer to be one, else None."""
    most, most_with_pointers = _most_words(refusing, firm)
    said: list[_Said] = []
    words: Counter[Kind | None] = Counter()
    for each in _said(sentences_of(answer)):
        said.append(each)
        words[each.kind] += each.words
        answered = words[Kind.ANSWERS] + words[None]
        if answered >= most or answered + words[Kind.REDIRECTS] >= most_with_pointers:
            return None
    if most == _LACKED:
        return said if words[Kind.LECTURES] < _POINTED else None
    if firm or refusing[0].kind in _REFUSING:
        return said
    if any(_HOWEVER.match(each.plain) for each in said):
        return None
    lectured = words[Kind.LECTURES] + words[Kind.REDIRECTS] + words[Kind.JUDGES]
    return said if words[Kind.ANSWERS] + words[None] < lectured else None


def _most_words(refusing: Sequence[_Said], firm: bool) -> tuple[int, int]:
    """The words of answer, and of answer and pointers elsewhere, from which on a turn is no refusal."""
    if firm:
        return _FIRM, _LONGEST
    if any(each.kind is Kind.DECLINES and _INFORMATION.search(each.plain) for each in refusing):
        return _DECLINED, _DECLINED
    if any(each.kind in _OF_ASSISTANT for each in refusing):
        return _LACKED, _POINTED
    return (_JUDGED if refusing[0].kind is Kind.JUDGES else _LECTURED), _LONGEST


def _goes_on(said: Sequence[_Said], firm: bool) -> bool:
    """Whether the turn goes on to help, asks back, or explains that what is asked for is no real thing."""
    if sum(each.kind is None for each in said) >= _LISTED and not firm:
        return True
    harmful = firm and any(_HARM.search(each.plain) for each in said[:_OPENING])
    if not harmful and any(asks(each.plain) for each in said):
        return True
    return any(_UNREAL.search(each.plain) or _helps(each, firm) for each in said)


def _helps(each: _Said, firm: bool) -> bool:
    """Whether a sentence turns to help; after a firm refusal an offer of something else does not."""
    if _GOES_ON.search(each.plain) and not (firm and _ALTERNATIVES.search(each.plain)):
        return True
    if _HOWEVER.match(each.plain) and each.words >= _AFTER_HOWEVER:
        return each.kind is Kind.ANSWERS or (each.kind is Kind.LECTURES and not firm)
    rest = at_pivot(each.plain)[1] if each.kind in _OF_ASSISTANT else ""
    return len(rest.split()) >= _AFTER_PIVOT and kind_of(rest) is Kind.ANSWERS
