"""Read what a teacher said: an answer, a user's message, a list of instructions. What cannot be used is dropped."""

from __future__ import annotations

import re
from typing import NamedTuple

from zephyr_ray.inference.request_plan import Completion
from zephyr_ray.schemas import Dropped, Reason

_SHORTEST, _LONGEST = 3, 150  # words of an instruction, as in Self-Instruct
_REFUSAL_WORDS = 100  # a longer reply that begins with a refusal goes on to help
_REFUSAL = re.compile(
    r"(as an? (ai|artificial intelligence|language model)\b[^.!?\n]{0,60}[,.]\s*)?"
    r"((i['’]?m|i am) (really |very |so )?sorry|sorry|i apologi[sz]e|unfortunately)?"
    r"[,.]?\s*(but )?(as an? (ai|artificial intelligence|language model)\b[^.!?\n]{0,60}, )?"
    r"(i (can['’]?t|cannot|can not|won['’]?t|will not|am (unable|not able) to|['’]?m (unable|not able) to)"
    r"|i['’]?m (unable|not able) to)\s+(be able to )?"
    r"(assist|help(?! but)|comply|fulfil+|provide|do (that|this)|answer|respond|continue|engage|create|write|generate"
    r"|complete|support|participate|discuss|offer|satisfy|accommodate)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^\W{0,3}((new|better|improved|revised|refined|next|the|user['’]?s|user|human|follow[- ]?up)\s+){0,3}"
    r"(task|instruction|prompt|message|question|user|human)\W{0,3}:\W{0,3}\s*",
    re.IGNORECASE,
)
_OTHER_SPEAKER = re.compile(r"(?:^|\n)\s*\W{0,3}(assistant|answer|response)\W{0,3}:", re.IGNORECASE)
_NUMBER = re.compile(r"^[ \t]*(?:\*\*)?(\d{1,4})[.):](?:\*\*)?[ \t]+", re.MULTILINE)
_NOT_TEXT = re.compile(
    r"\b(images?|pictures?|photos?|photographs?|graphs?|charts?|maps?|videos?|audio|files?|attached|website|url|draw)\b",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("“", "”"), ("**", "**"))


class ReadList(NamedTuple):
    """The instructions in a reply."""

    usable: list[str]
    unusable: int
    """Those that are too short or too long, ask for what is not text, or do not begin with a letter or digit."""


def said(completion: Completion) -> str:
    """The text of a whole reply.

    Raises:
        Dropped: It is cut, empty or a refusal.
    """
    text = completion.content.strip()
    if completion.finish_reason == "length":
        raise Dropped(Reason.TEACHER_CUT, text[-200:])
    if not text:
        raise Dropped(Reason.EMPTY, "the teacher's reply is empty")
    if _refuses(text):
        raise Dropped(Reason.TEACHER_REFUSED, text)
    return text


def user_message(completion: Completion) -> str:
    """The user's message that a teacher was asked for, without labels and quotes around it.

    Raises:
        Dropped: As `said`, or there is no message in it.
    """
    text = said(completion)
    text = _LABEL.sub("", _OTHER_SPEAKER.split(text)[0], count=1).strip()
    text = text.removeprefix("<<<").removesuffix(">>>").strip()
    for opening, closing in _QUOTES:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and opening not in inner and closing not in inner:
            text = inner.strip()
    if not any(character.isalnum() for character in text):
        raise Dropped(Reason.NO_INSTRUCTION, completion.content[:200])
    return text


def instructions(completion: Completion, new: int) -> ReadList:
    """The instructions of a numbered list, no more than `new` of them.

    Text before the first number is an introduction. A number that does not follow the one before it belongs to an
    instruction's own list. The last instruction of a reply that was cut is left out.
    """
    text = completion.content.strip()
    marks: list[re.Match[str]] = []
    for mark in _NUMBER.finditer(text):
        if not marks or int(mark[1]) == int(marks[-1][1]) + 1:
            marks.append(mark)
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    items = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    if completion.finish_reason == "length":
        items = items[:-1]
    found = [_without_markup(item) for item in items[:new]]
    usable = [item for item in found if _is_usable(item)]
    return ReadList(usable, len(found) - len(usable))


def _without_markup(item: str) -> str:
    return _LABEL.sub("", item.replace("**", ""), count=1).strip()


def _is_usable(instruction: str) -> bool:
    words = instruction.split()
    return (
        _SHORTEST <= len(words) <= _LONGEST
        and instruction[0].isalnum()
        and not _NOT_TEXT.search(instruction)
        and not _refuses(instruction)
    )


def _refuses(text: str) -> bool:
    return _REFUSAL.match(text) is not None and len(text.split()) <= _REFUSAL_WORDS
