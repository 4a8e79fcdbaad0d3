"""Take disclaimers out of an answer: what an assistant says of itself before it goes on to help.

    As an AI language model, I do not have opinions, but a good start is ...  ->  A good start is ...
    I don't have access to real-time data. However, as of 2020 ...            ->  As of 2020 ...
    As an AI language model, I can offer three ideas.                         ->  I can offer three ideas.

Text is only taken away, and what then begins a sentence gets a capital. Disclaimers that name the assistant ("As an
AI ...") go wherever a sentence of the answer's own prose begins with one; others only at the start of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from zephyr_ray.data.cleaning.questions import asks_about_assistant, asks_for_fiction, asks_for_words_to_others
from zephyr_ray.data.cleaning.self_statements import (
    ADVERBS,
    AI,
    CANNOT,
    HAVE_NOT,
    MISSING,
    Kind,
    at_pivot,
    is_of_machines,
    kind_of,
    one_of,
    plain,
    requests,
)
from zephyr_ray.data.cleaning.sentences import Sentence, sentences_of

_OPENING = 2
"""Sentences at the start of an answer in which a disclaimer need not name the assistant."""
_SHORTEST = 3
"""Words that are left of a sentence; fewer go with its disclaimer."""
_POINTER = 12
"""Words of a turn that only sends the user elsewhere; with fewer nothing of use is left of it."""

_NAMES = (
    *(" ai", "a.i.", "chatbot", "computer", "digital", "intelligen", "language", "machine", "non-human", "text-"),
    "virtual",
)
_NAMES_AI = re.compile(rf"\ban? {AI}")
_NOT = ("not", "n't", "unable", "lack", "refuse", "decline", "incapable", "have no")
_SAYS_I = re.compile(rf"{CANNOT}|{HAVE_NOT}")
_START = 250
"""Characters in which `_SAYS_I` has to be."""

_FOR = r"(?: for (?:any|the) \w+)?"
_POLITE = (
    "(?:"
    + one_of(
        rf"""(?:i'm|i am) (?:(?:very|so|really) )?(?:sorry|afraid){_FOR}, i apologi[sz]e{_FOR}, (?:my )?apologies,
        sorry, unfortunately, well, yes, (?:please )?(?:note|keep in mind|remember), however, but, nevertheless,
        i (?:have to|must|need to|should|want to|would like to) (?:admit|clarify|mention|note|point out|say),
        additionally, also, and, as such, because of this, hence, so, therefore, thus,
        it(?:'s| is) (?:also )?(?:important|worth) (?:to )?(?:note|remember|mention|noting|mentioning)"""
    )
    + r"[,:]?(?: (?:but|that)\b,?)? |as of my (?:\w+ )?(?:cutoff|knowledge|training|update)(?: [^\s,.]+){0,5}, ){0,5}"
)
_MADE = (
    r"(?: (?:(?:that|who) (?:was|is) )?(?:based|built|created|designed|developed|made|powered|programmed|trained)"
    r" [^,.;:]{2,60}| and (?:do not|don't|cannot|can't|lack) [^,.;:]{2,80})?"
)
_SINCE = r"(?:as|being|(?:as|because|considering that|given that|since) i(?: am|'m))"
_AS_AI = re.compile(rf"\W*{_POLITE}(?:{_SINCE} an? {AI}{_MADE},? ){_POLITE}")
_IS_AI = re.compile(
    rf"\W*{_POLITE}(?:i(?: am|'m) (?:{ADVERBS})*|it(?:'s| is) (?:difficult|hard|impossible|not possible) for )an? {AI}"
)
_NO_BODY = re.compile(
    r"\b(?:do not|don't|lack|without) (?:have |having )?(?:an? |any )?"
    r"(?:physical (?:body|form|presence)|sense of (?:smell|taste|touch)|taste buds)\b"
)
_LACKS_ANY = re.compile(
    rf"(?:{HAVE_NOT}\b(?! (?:to|(?:much |enough |the )?time|an? (?:choice|doubt|problem)|any (?:doubts?|problems?))\b)"
    rf"|{CANNOT} (?!agree|be |believe|but|emphasi|express|get enough|guarantee|help |imagine (?!nor|or )|promise"
    r"|recommend \w+ (?:highly|more)|say no|stress|thank|wait))"
)
_HELPS = re.compile(
    r"(?:i can|i could|i would|i'd|here|you (?:can|could|may|might)|based on|according to|generally|in general|as of"
    r"|the|this|that|there|it|some|if)\b"
)
"""How a clause goes on that helps after the assistant has said what it lacks."""
_POLITELY = re.compile(rf"\W*{_POLITE}")
_SAYS_NOT = re.compile(
    rf"{CANNOT}\b|{HAVE_NOT}\b"
    rf"|i (?:{ADVERBS})*"
    r"(?:do not|don't|did not|didn't|am not|haven't|have not|never|was (?:last )?trained|follow|remain)\b"
    r"|i(?:'m| am) (?:not|just|only|simply|solely|here to|designed|programmed|trained)\b"
    r"|my (?:\w+ )?"
    + one_of("abilit, capabilit, data, function, goal, knowledge, programming, purpose, responses, role, training")
)
_CLARIFIES = re.compile(r"\bi (?:have to|must|need to|should|want to|would like to) ")
_OF_ITSELF = re.compile(r"(?:i|i'm|i'd|i'll|i've|my|it|it's|here|here's|there)\b")
"""How a sentence goes on that is about the assistant; "As an AI, you will ..." is not."""
_MEDIUM = one_of("audio, graphic, image, link, photo, picture, real-time, video, visual")
_LACKS = re.compile(
    rf"{HAVE_NOT}(?: [\w/-]+,?){{0,5}}? {MISSING}\b|{CANNOT} (?:\w+ly )?"
    r"(?:access|browse|experience|feel|predict the future"
    rf"|(?:creat|design|display|draw|edit|generat|produc|provid|send|show|upload)\w* (?:\w+ )?(?:\w+ )?{_MEDIUM})"
)
_OFFERS_NOTHING = re.compile(
    r"(?:i am|i'm|i was|i will|i'll)\b.{0,20}\b(?:designed|do my best|happy|here|programmed|trained|try)\b"
    r"|my (?:function|goal|purpose|role)\b"
)
_NO_CLAUSE = re.compile(
    one_of("also, and, by, for the, from, instead of, just, merely, nor, not, of, only, or, rather, with") + r"\b"
)
_CONNECTIVE = re.compile(
    r"(?:but,?|"
    + one_of(
        """additionally, furthermore, having said that, however, instead, moreover, nevertheless, nonetheless,
        rather, so, still, that being said, that said, therefore, thus, with that said, yet"""
    )
    + r",)\s+",
    re.IGNORECASE,
)
"""What ties a sentence to the one before."""


class Cleaned(NamedTuple):
    """An answer without its disclaimers: the text, and the sentences that had one."""

    text: str
    found: tuple[str, ...]


def without_disclaimers(question: str, answer: str) -> Cleaned:
    """The answer itself where it has no disclaimer; empty text where nothing of use is left.

    An answer to a question about artificial intelligence or about the assistant has none: there they inform.
    """
    if not _may_disclaim(answer) or asks_about_assistant(question):
        return Cleaned(answer, ())
    sentences = sentences_of(answer)
    kept: list[Sentence] = []
    found: list[str] = []
    removed_before = False
    fiction, to_others = asks_for_fiction(question), asks_for_words_to_others(question)
    for place, each in enumerate(sentences):
        at_start = place < _OPENING and (not fiction or is_of_machines(plain(each.text)))
        rest = _rest_of(each.text, at_start, removed_before, fiction) if each.prose else None
        if rest is None and place == 0 and each.prose and not to_others:
            rest = _rest_of_lack(each.text, sentences[1].text if len(sentences) > 1 else "")
        if rest is not None:
            found.append(each.text)
            _keep(kept, each._replace(text=rest))
        else:
            _keep(kept, each._replace(text=_without_connective(each)) if removed_before else each)
        removed_before = rest == ""
    if not found or (not _NAMES_AI.search(plain(answer)) and _asks_back(sentences)):
        return Cleaned(answer, ())
    return Cleaned(_joined(kept) if _is_of_use(kept) else "", tuple(found))


def _may_disclaim(answer: str) -> bool:
    """False where an answer has no disclaimer, as most answers; cheap."""
    lower = plain(answer)
    if any(name in lower for name in _NAMES) and _NAMES_AI.search(lower):
        return True
    start = lower[:_START]
    return ("i " in start or "i'm" in start) and any(word in start for word in _NOT) and bool(_SAYS_I.search(start))


def _rest_of_lack(sentence: str, following: str) -> str | None:
    """What is left of an answer's first sentence if it says what its writer lacks or cannot do, and the answer goes on
    to help all the same; else None."""
    lower = plain(sentence)
    lead = _POLITELY.match(lower)
    start = lead.end() if lead else 0
    if len(lower) != len(sentence) or not _LACKS_ANY.match(lower, start):
        return None
    rest = at_pivot(sentence[start:])[1]
    if rest:
        return _clause(rest) if _HELPS.match(plain(rest)) else None
    match = _CONNECTIVE.match(following)
    return "" if match and _HELPS.match(plain(following[match.end() :])) else None


def _rest_of(sentence: str, at_start: bool, removed_before: bool, fiction: bool) -> str | None:
    """What is left of a sentence without its disclaimer, or None if it has none.

    `at_start` allows disclaimers that do not name the assistant, `removed_before` all that follows from one. In
    `fiction` "I am an AI" is none by itself.
    """
    lower = plain(sentence)
    if len(lower) != len(sentence):  # a letter without a lower case of its own, so that places differ
        return None
    names = any(name in lower for name in _NAMES)
    if not (names or at_start or removed_before):
        return None
    if (lead := _AS_AI.match(lower)) is not None:
        body = sentence[lead.end() :]
        if _SAYS_NOT.match(plain(body)):
            return _after_pivot(body)
        return _clause(body) if _OF_ITSELF.match(plain(body)) or _CLARIFIES.search(lead.group()) else None
    if _IS_AI.match(lower) and not (fiction and not any(word in lower for word in _NOT)):
        return _after_pivot(sentence)
    lead = _POLITELY.match(lower)
    body = sentence[lead.end() :] if lead else sentence
    if at_start and (_LACKS.match(plain(body)) or (_SAYS_I.match(plain(body)) and _NO_BODY.search(lower))):
        return _after_pivot(body)
    of_itself = removed_before or (names and _NAMES_AI.search(plain(body)))
    return _after_pivot(body) if of_itself and _SAYS_NOT.match(plain(body)) else None


def _after_pivot(disclaimer: str) -> str:
    """The clause after "but" or "however", or nothing."""
    rest = at_pivot(disclaimer)[1]
    return "" if _NO_CLAUSE.match(plain(rest)) or _SAYS_NOT.match(plain(rest)) else _clause(rest)


def _clause(text: str) -> str:
    """The text as a sentence, or nothing if it is too short or only says what the assistant is for."""
    if len(text.split()) < _SHORTEST or _OFFERS_NOTHING.match(plain(text)):
        return ""
    return _capitalized(text)


def _without_connective(sentence: Sentence) -> str:
    """The sentence without a "However," that ties it to what was removed."""
    match = _CONNECTIVE.match(sentence.text) if sentence.prose else None
    return _capitalized(sentence.text[match.end() :]) if match and match.end() < len(sentence.text) else sentence.text


def _capitalized(text: str) -> str:
    """The text with a capital first letter, unless it is a name such as "iPhone"."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def _keep(kept: list[Sentence], sentence: Sentence) -> None:
    """Appends the sentence; of one without text only a line break that ends what is before it is kept."""
    if sentence.text or not kept:
        kept.append(sentence)
    elif sentence.after.count("\n") > kept[-1].after.count("\n"):
        kept[-1] = kept[-1]._replace(after=sentence.after)


def _asks_back(sentences: Sequence[Sentence]) -> bool:
    """Whether the answer asks the user for what is missing, so that what it says it lacks is its point."""
    return any(each.prose and requests(plain(each.text)) for each in sentences)


def _joined(kept: list[Sentence]) -> str:
    return "".join(each.text + each.after for each in kept).strip("\n ")


def _is_of_use(kept: list[Sentence]) -> bool:
    """Whether the sentences say more than where else to ask."""
    words = sum(len(each.text.split()) for each in kept)
    kinds = {kind_of(plain(each.text)) if each.prose else None for each in kept if each.text}
    return words >= _POINTER or not kinds <= {Kind.REDIRECTS, Kind.DECLINES, Kind.LACKS}
