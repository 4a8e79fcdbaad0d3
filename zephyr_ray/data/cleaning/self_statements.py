"""What assistants say in place of an answer, as kinds of sentences.

Patterns read sentences as `plain` gives them: lower case, straight apostrophes. What a turn with such sentences is (a
refusal, an answer with a disclaimer), `refused_turns` and `disclaimers` decide.
"""

from __future__ import annotations

import re
from enum import Enum, auto

_LONGEST = 600
"""Characters of a sentence that are read, so that text without full stops costs no more."""


class Kind(Enum):
    """What a sentence does in a turn."""

    DECLINES = auto()
    """It says that the assistant cannot or will not do something."""
    JUDGES = auto()
    """It calls the request, or what it asks for, wrong."""
    LACKS = auto()
    """It says what the assistant has not: opinions, access, a body."""
    ASKS = auto()
    """It asks the user for what is missing."""
    LECTURES = auto()
    """It says what is right, safe or allowed, or what the assistant is for."""
    REDIRECTS = auto()
    """It sends the user elsewhere, or offers other help."""
    ANSWERS = auto()
    """Anything else."""


def one_of(alternatives: str) -> str:
    """A pattern of what is listed, with commas between."""
    return f"(?:{'|'.join(part.strip() for part in alternatives.split(','))})"


_ADJECTIVE = one_of(
    """advanced, conversational, generative, harmless, helpful, impartial, large, mere, neutral, objective, responsible,
    simple, sophisticated, trained, unbiased"""
)
_ARTIFICIAL = (
    r"(?:ai|a\.i\.|artificial intelligen(?:ce|t)|machine learning)\b(?:-powered|-based)?"
    r"(?: (?:language|chat|text|virtual|digital|computer))*"
    r"(?: (?:model|assistant|program|system|chatbot|bot|entity|being|tool|software))*"
)
_VIRTUAL = (
    r"(?:chatbot|computer|digital|machine|non-human|text-based|virtual)(?: ai)?(?: language)?"
    r"(?: (?:assistant|being|entity|model|program|system))?"
)
_AFTER = one_of(
    """and, as, based, because, built, but, by, created, designed, developed, from, here, however, i, i'm, it, like,
    made, my, powered, programmed, so, that, therefore, trained, which, who, with, without"""
)
AI = rf"(?:{_ADJECTIVE} )*(?:{_ARTIFICIAL}|language (?:generation )?model(?: ai)?|{_VIRTUAL})(?=[^\w ]|$| {_AFTER}\b)"
"""What an assistant calls itself, after an article; not a "machine learning engineer"."""
ADVERBS = (
    one_of(
        """absolutely, actually, also, as such, at this time, certainly, currently, directly, just, only,
        personally, physically, really, simply, still, therefore, truly, unfortunately"""
    )
    + " "
)
_WILL_NOT = one_of(
    """cannot, can't, can not, will not, won't, would not, wouldn't, must decline to, have to decline to,
        refuse to, do not feel comfortable, don't feel comfortable"""
)
_UNABLE = one_of(
    """unable to, not able to, not allowed to, not authorized to, not permitted to, not capable of,
        incapable of, not programmed to, not designed to, not equipped to, not in a position to,
        not comfortable, not going to"""
)
CANNOT = rf"(?:i (?:{ADVERBS})*{_WILL_NOT}|i(?: am|'m) (?:{ADVERBS})*{_UNABLE})"
HAVE_NOT = (
    rf"(?:i (?:{ADVERBS})*(?:(?:do not|don't|cannot|can't) (?:{ADVERBS})*(?:have|possess|hold|form)|lack|have no))"
)
MISSING = one_of(
    r"""access, answers?, beliefs?, body, capabilit(?:y|ies), capacity, consciousness, context, data,
        database, details, emotions?, experiences?, eyes, feelings?, information, insights?, intentions,
        knowledge, memor(?:y|ies), opinions?, perception, permission, physical, preferences?, senses?,
        statistics, thoughts, updates?, views?, ability"""
)
_DO = one_of(
    r"""access, advis, analy, answer, assist, book, browse, calculat, check, come up, comment, compil,
        complete, compose, comply, condon, confirm, creat, delet, describ, design, determin, diagnos, disclos,
        discuss, display, do (?:that|this), download, draw, edit, encourag, endors, engag, execut, explain,
        express, fulfil, generat, giv, hear, help(?! but| feeling| think| notic| wonder), identify, list,
        listen,
        mak(?!\w* (?:(?:an?|any|such) )?(?:\w+ )?(?:assumption|opinion|judg|decision|claim|prediction)),
        offer, open, order, participat, perform, plac, play, predict, produc, promot, provid, read, recommend,
        respon, reveal, satisf, say, schedul, search, see, send, shar, show, speculat, suggest, summari,
        suppl, support, take part, tell, translat, updat, upload, verify, view, visit, watch, writ"""
)
_DECLINES = re.compile(
    rf"\b{CANNOT} (?:{ADVERBS})*(?:to )?(?:\w+ly )?{_DO}"
    r"|(?:not|n't)(?: within)? my programming|(?:do not|don't|not) condone\b"
    r"|\bi (?:must|have to) (?:respectfully )?(?:decline|refuse)\b"
    r"|\bi(?: am|'m) going to (?:have to )?(?:decline|stop)\b"
    r"|(?:not|never) recommended to (?:attempt|try)\b"
    r"|\b(?:against|violates?) my (?:guidelines|principles|programming|values)\b"
)
_LACKS = re.compile(
    rf"\b(?:{HAVE_NOT}(?: [\w/-]+,?){{0,5}}? {MISSING}\b|i(?: am|'m) (?:{ADVERBS})*an? {AI}"
    rf"|as an? {AI}\b.*(?:\bnot\b|n't\b|cannot|unable|incapable|lack|beyond)"
    r"|i (?:do not|don't) know (?:your|the|this|that|what|who|where|when|which|whether|if|of)\b)"
)

_GOOD = one_of(
    "accurate, fair, appropriate, ethical, acceptable, respectful, okay, legal, safe, moral, responsible, productive,"
    "helpful, valid"
)
_OR_GOOD = rf"(?: (?:or|and|nor) (?:\w+ly )?{_GOOD})*"
_WRONG = one_of(
    rf"""\bit(?:'s| is| would be)(?: also| generally)? (?:not|never)(?: only)? (?:a )?(?:\w+ly )?{_GOOD}{_OR_GOOD},
        \bit(?:'s| is| would be) (?:inappropriate|unethical|illegal|wrong)(?: (?:and|or) \w+)?,
        \bi (?:do not|don't) (?:think|believe) (?:it's|it is|that's|that is) (?:a )?{_GOOD}{_OR_GOOD},
        \bi'm not sure (?:that )?(?:it's|it is) {_GOOD}{_OR_GOOD}"""
)
_SAY = one_of(
    r"""access, advis, answer, ask, assum, creat, den(?:y|ying)\b, discriminat, discuss, encourag, exclud,
        engag, generaliz, giv, jok, mak, obtain, promot, provid, refer\b, respond, say\b, seek, shar, spread,
        stereotyp, suggest, tr(?:y|ies)\b, us(?:e|ing)"""
)
_JUDGES_THE_REQUEST = re.compile(
    rf"{_WRONG}(?: question| for me)? to (?:\w+ly )?(?:try to )?{_SAY}"
    rf"|\basking\b.{{0,60}}\b(?:not|never) (?:an? )?{_GOOD}\b"
)
_CORRECTS = re.compile(r"(?:not|never) (?:accurate|fair)(?: (?:or|and) (?:accurate|fair))?\b(?! or| and)")
_JUDGES = re.compile(
    rf"{_WRONG}|\b(?:important|crucial|essential)\b.*\b(?:never|not) (?:be )?(?:\w+ or )?{_GOOD}\b"
    r"|\b(?:important|crucial)\b.*\b(?:is|are) (?:illegal|unethical|immoral)\b"
    r"|\bshould never be (?:allowed|attempted|considered|encouraged|promoted)\b"
    r"|\bi (?:strongly |do )?(?:condemn|discourage|advise against)\b"
)

_VALUES = re.compile(
    r"\b"
    + one_of(
        """abus, acceptable, appropriate, autonom, compassion, condemn, confidential, consent, consequences,
        crim, crucial, cruel, danger, dignity, discriminat, divers, equal, essential, ethic, fair,
        fundamental, harm, human (?:life|rights|being), illegal, important, inclusiv, innocent, justice,
        kindness, law enforcement, legal, moral, non-violent, peace, prejudice, privacy, private, respect,
        safe, seek help, stereotyp, suffer, support, tolera, tragic, unacceptable, unethical, unlawful,
        values, violat, violen, vulnerable, well-being, wrong"""
    )
)
_GENERAL = re.compile(
    r"\W*"
    + one_of(
        """additionally, all, also, always, any, every, everyone, furthermore, however, in addition, instead,
        it is, it's, moreover, please, remember, such, that, there are, therefore, these, they, this, those,
        we should"""
    )
    + r"\b"
)
_LECTURES = re.compile(
    r"\b(?:illegal|unethical|immoral|inappropriate|unacceptable|committed to"
    r"|serious (?:crime|offense|consequences|legal)"
    r"|(?:purpose|role|function|goal) is (?:solely |simply |only )?to (?:provid|assist|help)"
    r"|(?:designed|programmed|here) to (?:provid|assist|respect|promot|help))"
)
_REDIRECTS = re.compile(
    r"\b(?:i|we) (?:would |strongly |highly |'d )*(?:suggest|recommend|advise|encourage|urge)"
    r"|\bif you(?:'re|'ve| are| believe| feel| find| have| need| or someone| require| suspect| want| wish"
    r"| would like)\b"
    r"|\byou (?:can|could|may|might|should|will need|would need|'ll need)"
    r"(?: also| easily| always| want to| wish to| need to| try| consider| instead)* (?:to )?"
    + one_of(
        r"""ask, brows, call, check, conduct, consult, contact, do your, email, find,
        look(?:ing)? (?:up|for|at|on), reach, refer, search, seek, speak, talk, use a search, visit"""
    )
    + r"|\b(?:please|kindly) "
    + one_of(
        "call, check, consult, contact, feel free, let me know, reach, refer, search, seek, speak, talk, try, visit"
    )
    + r"|\bit(?:'s| is| would be| may be| might be) (?:always |also )*"
    + one_of("a good idea, advisable, advised, best, better, helpful, more appropriate, recommended")
    + r"|\b(?:is there (?:anything|something) else|feel free|let me know|do you have any other|happy to (?:help|assist)"
    r"|(?:how )?(?:can|could|may) i (?:help|assist)|my best to (?:help|assist))"
    r"|\b(?:mental health professional|crisis hotline|trusted (?:friend|adult|person))"
)
_CONTACT = re.compile(r"\d{3}\W{1,2}\d{3}|@|https?://|www\.")
"""A pointer with an address or a number helps."""
_REQUESTS = (
    r"\b(?:please|could you|can you|would you|you could|you can)(?: \w+)? "
    + one_of("provide, specify, clarify, share, give, tell, rephrase, elaborate, describe, upload, paste, send")
    + r"\b|\bdo you (?:mean|want|have)\b.*\?$|\bwhat (?:is|are) (?:the|your) .*\?$"
)
_ASKS = re.compile(
    _REQUESTS
    + r"|\bwithout (?:knowing|having|seeing|(?:more|further|additional|any|specific|proper|the|enough|sufficient)"
    r" (?:\w+ ){0,2}(?:context|information|details|knowledge|data))"
)
_REQUEST = re.compile(_REQUESTS)
_NO_PIVOT = "".join(
    rf"(?<!{word})(?<!{word},)" for word in ("sorry", "apologize", "apologise", "apologies", "unfortunately")
)
_OF_MACHINES = re.compile(
    rf"\ban? {AI}|\b(?:ability|access to|capabilit|capacity|real-time)"
    r"|\bpersonal (?:beliefs|experience|feelings|opinions|preferences)"
)
_PIVOT = re.compile(
    rf"{_NO_PIVOT}(?:\s*[,;]|\s+[-\u2013\u2014])?\s+(?:but|however|nevertheless|nonetheless|yet)\b,?\s+", re.IGNORECASE
)


def kind_of(sentence: str) -> Kind:
    """What a plain sentence does."""
    sentence = sentence[:_LONGEST]
    if _DECLINES.search(sentence):
        return Kind.DECLINES
    if judges_the_request(sentence) or (_JUDGES.search(sentence) and not _CORRECTS.search(sentence)):
        return Kind.JUDGES
    if _LACKS.search(sentence):
        return Kind.LACKS
    if asks(sentence):
        return Kind.ASKS
    if _is_lecture(sentence):
        return Kind.LECTURES
    return Kind.REDIRECTS if _REDIRECTS.search(sentence) and not _CONTACT.search(sentence) else Kind.ANSWERS


def judges_the_request(sentence: str) -> bool:
    """Whether a plain sentence says that it is wrong to ask for something or to say it."""
    return bool(_JUDGES_THE_REQUEST.search(sentence)) and not _CORRECTS.search(sentence)


def is_of_machines(sentence: str) -> bool:
    """Whether a plain sentence names an assistant or what only one would say it lacks, unlike a story's narrator."""
    return bool(_OF_MACHINES.search(sentence[:_LONGEST]))


def asks(sentence: str) -> bool:
    """Whether a plain sentence asks the user for what is missing, whatever else it does."""
    return bool(_ASKS.search(sentence[-_LONGEST:]))


def requests(sentence: str) -> bool:
    """Whether a plain sentence asks the user in so many words for what is missing."""
    return bool(_REQUEST.search(sentence[-_LONGEST:]))


def at_pivot(sentence: str) -> tuple[str, str]:
    """The sentence before and after the first "but" or "however" within it; the second is empty if there is none."""
    match = _PIVOT.search(sentence)
    return (sentence[: match.start()], sentence[match.end() :]) if match else (sentence, "")


def plain(text: str) -> str:
    """The text in lower case, with straight apostrophes."""
    return text.lower().replace("\u2019", "'")


def _is_lecture(sentence: str) -> bool:
    values = len(_VALUES.findall(sentence))
    return values >= (1 if _GENERAL.match(sentence) else 3) or bool(_LECTURES.search(sentence))
