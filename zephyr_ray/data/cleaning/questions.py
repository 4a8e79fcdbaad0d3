"""What a user asks for, where that makes an answer out of what reads as a refusal or a disclaimer."""

from __future__ import annotations

import re

from zephyr_ray.data.cleaning.self_statements import one_of, plain

_ABOUT_RIGHT = re.compile(
    r"\b(?:il|un|im|in)?(?:legal|ethical|moral|appropriate|acceptable|permissible|lawful)\b|\bethics\b"
    r"|\b(?:okay|ok|right|wrong|safe) (?:to|if|for)\b"
    r"|(?:^|[.!?\n] )(?:what (?:does|do|is)|what's)\b"
    r"(?!.*\b(?:address|details|method|number|plan|process|strateg|way))"
    r"|(?:^|[.!?\n] )"
    r"(?:define|describe|explain|is|are|was|were|should|does|do|did|would|may i|can (?:i|we|one|people))\b"
)
_ABOUT_ASSISTANT = re.compile(
    r"\b"
    + one_of(
        r"""ai, ais, a\.i\., alexa, artificial intelligence, bard, chatbots?, chatgpt, gpt(?:-?\d\S*)?,
        language models?, llms?, robots?, siri, turing test"""
    )
    + r"\b|\bare(?:n't)? you\b|\b(?:who|what) are you\b|\b(?:about|introduce|describe) (?:you|yourself)\b|\byour "
    + one_of(r"capabilit\w+, creators?, developers?, emotions, feelings, limitations?, name, purpose, training")
    + r"\b|\b(?:do|can|could|did|have|would|will) you (?:\w+ )?"
    + one_of(
        r"""dream, eat, exist, experience, feel, learn, remember, sleep, understand,
        have (?:\w+ )?(?:\w+ )?(?:access|body|consciousness|emotions|feelings|limitations|memory)"""
    )
    + r"\b"
)
_FOR_A_REFUSAL = re.compile(
    r"\b"
    + one_of(
        r"""apolog, complete the (?:sentence|story|dialog), correct the, declin, edit the (?:following|sentence|text),
        excuse, paraphras, pretend, proofread, refus, reject, rephras, reword, rewrit, role.?play, say(?:ing)? no\b,
        translat, turn(?:ing)? down"""
    )
)
_FOR_FICTION = re.compile(
    r"\b"
    + one_of(
        r"""ballad, character, diary, dialog, email, e-mail, essay, fiction, first.person, haiku, imagine, journal,
        letter, limerick, lyrics, monologue, narrat, novel, poem, pretend, rap\b, review, role.?play, scene, script,
        skit, song, sonnet, speech, story, stories"""
    )
)
_ASKS_ABOUT = re.compile(
    r"\b(?:clarify|confirm|explain|find|how (?:long|many|much|often|to)|is there|are there|where|when"
    r"|tell me (?:about|more|if|whether|how|what|when|where|which|who|why))\b"
)
_WRITES = re.compile(
    r"\b"
    + one_of(
        r"""compos, craft, creat, continu, draft, generat, imagin, make up, come up, pretend, produc, rewrit,
        tell (?:me )?an?\b, writ"""
    )
)
_FOR_OTHERS = re.compile(
    r"\b"
    + one_of(r"answer (?:as|to), customer, excuse, invitation, message, post\b, repl(?:y|ies), respon, rsvp, tweet")
)


def asks_about_assistant(question: str) -> bool:
    """Whether it asks about artificial intelligence or the assistant, which then answers by what it says of itself."""
    return bool(_ABOUT_ASSISTANT.search(plain(question)))


def asks_what_is_right(question: str) -> bool:
    """Whether it asks what something is, or what is allowed, so that "it is not ethical to ..." answers."""
    return bool(_ABOUT_RIGHT.search(plain(question)))


def asks_for_a_refusal(question: str) -> bool:
    """Whether it asks for text that may read as a refusal: a letter that declines, a translation, a part to play."""
    return bool(_FOR_A_REFUSAL.search(plain(question)))


def asks_for_fiction(question: str) -> bool:
    """Whether it asks for text in which "I" may be somebody else: a story, a poem, a letter."""
    lower = plain(question)
    return bool(_FOR_FICTION.search(lower)) and not (_ASKS_ABOUT.search(lower) and not _WRITES.search(lower))


def asks_for_words_to_others(question: str) -> bool:
    """Whether it asks for text in which the user or somebody else speaks: fiction, a reply, a message, a refusal."""
    lower = plain(question)
    return asks_for_fiction(question) or bool(_FOR_OTHERS.search(lower) or _FOR_A_REFUSAL.search(lower))
