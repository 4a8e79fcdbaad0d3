"""Reads a count and a seed -> prompts, a teacher's dialogues and scored answers of several models, all checkable.

A dozen kinds of small instructions (`families.py`) whose one right answer follows from the text of the prompt alone.
The teacher and the simulated models know the right answer and often give it badly, in the ways that real ones do: an
empty disclaimer, a needless refusal, chatter around the answer, the wrong case, the wrong format.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Literal

from zephyr_ray.embedded import families
from zephyr_ray.embedded.families import Task

Split = Literal["dialogues", "preferences", "held_out"]
Flaw = Literal["disclaimer", "refusal", "chatter", "case", "format", "wrong"]

TEACHER_FLAWS: tuple[Flaw, ...] = ("disclaimer", "refusal", "chatter", "case", "format")
"""What a flawed demonstration of the teacher suffers from, each as likely as the others where it applies."""

MODELS: dict[str, dict[Flaw, float]] = {
    "tiny-careful": {"disclaimer": 0.02, "chatter": 0.05, "case": 0.02, "format": 0.04, "wrong": 0.02},
    "tiny-chatty": {"chatter": 0.65, "disclaimer": 0.1, "format": 0.1, "wrong": 0.05},
    "tiny-lawyer": {"disclaimer": 0.65, "refusal": 0.15, "chatter": 0.1},
    "tiny-shouty": {"case": 0.6, "chatter": 0.2, "format": 0.1},
    "tiny-sloppy": {"format": 0.6, "wrong": 0.2, "case": 0.1},
    "tiny-timid": {"refusal": 0.65, "disclaimer": 0.25},
}
"""The pool of answerers: how often each has which flaw; else its answer is right."""

_ANSWERS_PER_PROMPT = 4
_MAX_TRIES = 10_000

_DISCLAIMERS = (
    "As an AI language model, I may be wrong. ",
    "As an AI, I have no opinions. ",
    "As a language model, I can only guess. ",
)
_REFUSALS = (
    "I am sorry, but I cannot help with that.",
    "Sorry, I am not able to do that.",
    "As an AI language model, I cannot do that.",
)
_OPENERS = ("Sure! Here is the answer: ", "Of course! ", "Great question! The answer is: ")
_CLOSERS = ("\nI hope this helps!", "\nLet me know if you need more.", "\nIs there anything else?")


def solve(instruction: str) -> str:
    """The one right answer, from the text of the instruction alone.

    Raises:
        ValueError: The text is no instruction of this world.
    """
    return families.parse(instruction).answer


def passes(instruction: str, answer: str) -> bool:
    """Whether an answer is right, in the form asked for, and nothing else; whitespace around it does not count."""
    return answer.strip() == solve(instruction)


def rate(instruction: str, answer: str) -> float:
    """An overall score from 1 to 10.

    10 is a pass and 1 a refusal or a wrong answer. A right answer loses 2 for its format, 3 for its case, 4 for chatter
    around it and 5 for a disclaimer; flaws add up, and it never falls below 2.
    """
    task = families.parse(instruction)
    if answer.strip() == task.answer:
        return 10.0
    stands, talk = _find(instruction, task, answer)
    if stands is None:
        return 1.0
    lost = 0
    if stands.lower() != task.answer.lower():
        lost += 2
    if _letters(stands) != _letters(task.answer):
        lost += 3
    if talk:
        lost += 5 if re.search(r"\b(AI|language model)\b", talk, re.IGNORECASE) else 4
    return float(max(2, 10 - lost))


def judge(messages: Sequence[Mapping[str, str]], answer: str) -> float | None:
    """The score of an answer to a conversation of one instruction; None where it is not of this world.

    What a recipe names as `judging.judge: {type: function, function: zephyr_ray.embedded.world:judge}`.
    """
    said = [message for message in messages if message["role"] != "system"]
    if len(said) != 1 or said[0]["role"] != "user":
        return None
    try:
        return rate(said[0]["content"], answer)
    except ValueError:
        return None


def split_of(instruction: str) -> Split:
    """The split that an instruction belongs to: a function of its text, so that no two splits share one."""
    bucket = hashlib.blake2b(instruction.encode(), digest_size=1).digest()[0]
    if bucket < 26:
        return "held_out"
    return "preferences" if bucket < 77 else "dialogues"


def prompts(split: Split, count: int, seed: int) -> Iterator[str]:
    """Draws different prompts of one split. The same seed gives the same prompts, and a larger count only adds to them.

    Raises:
        ValueError: The split has not that many prompts.
    """
    rng = Random(f"prompts {split} {seed}")
    seen: set[str] = set()
    for _ in range(count):
        instruction = _draw_new(split, rng, seen)
        seen.add(instruction)
        yield instruction


def dialogues(count: int, seed: int, flawed: float) -> Iterator[dict[str, Any]]:
    """The teacher's demonstrations: {messages: [user, assistant], source}; a share `flawed` of them has a flaw."""
    rng = Random(f"dialogues {seed}")
    for instruction in prompts("dialogues", count, seed):
        flaw = rng.choice(TEACHER_FLAWS) if rng.random() < flawed else None
        answer = respond(instruction, flaw, rng)
        messages = [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer}]
        yield {"messages": messages, "source": f"tiny:{families.parse(instruction).family}"}


def completions(
    count: int, seed: int, split: Literal["preferences", "held_out"] = "preferences"
) -> Iterator[dict[str, Any]]:
    """Scored answers to the prompts of a split, in UltraFeedback's layout.

    {instruction, completions: [{model, response, overall_score} x 4], source}; the scores are those of `rate`. The
    careful model answers every prompt, beside three others of the pool.
    """
    rng = Random(f"completions {seed}" if split == "preferences" else f"completions {split} {seed}")
    careful, *others = MODELS
    for instruction in prompts(split, count, seed):
        answers = []
        for model in rng.sample([careful, *rng.sample(others, _ANSWERS_PER_PROMPT - 1)], _ANSWERS_PER_PROMPT):
            response = respond(instruction, _draw_flaw(MODELS[model], rng), rng)
            answers.append({"model": model, "response": response, "overall_score": rate(instruction, response)})
        yield {
            "instruction": instruction,
            "completions": answers,
            "source": f"tiny:{families.parse(instruction).family}",
        }


def respond(instruction: str, flaw: Flaw | None, rng: Random) -> str:
    """An answer with the flaw, or the right one. Digits have no case: there the flaw of case becomes one of format."""
    task = families.parse(instruction)
    if flaw is None:
        return task.answer
    if flaw == "case" and not _letters(task.answer):
        flaw = "format"
    return _FLAWS[flaw](task, rng)


def _draw_new(split: Split, rng: Random, seen: set[str]) -> str:
    for _ in range(_MAX_TRIES):
        instruction = families.draw(rng)
        if instruction not in seen and split_of(instruction) == split:
            return instruction
    raise ValueError(f"the embedded world has no more than {len(seen)} {split} prompts; ask for fewer")


def _draw_flaw(profile: dict[Flaw, float], rng: Random) -> Flaw | None:
    point = rng.random()
    for flaw, share in profile.items():
        point -= share
        if point < 0:
            return flaw
    return None


def _wrong_case(task: Task, rng: Random) -> str:
    return task.answer.lower() if task.capitals else task.answer.upper()


def _wrong_format(task: Task, rng: Random) -> str:
    text = task.answer
    if len(task.items) > 1:
        separator = rng.choice([other for other in families.SEPARATORS.values() if other != task.separator])
        return text.replace(task.separator, separator)
    return rng.choice((f'"{text}"', f"{text}.", f"- {text}"))


def _wrong(task: Task, rng: Random) -> str:
    """A near miss: a number off by one or two, a list with its first two items swapped, another word or letter."""
    items = list(task.items)
    if task.kind == "number":
        items = [str(int(items[0]) + rng.choice((1, 2)))]
    elif len(items) > 1:
        items[0], items[1] = items[1], items[0]
    else:
        alike = next(pool for pool in (("even", "odd"), families.LETTERS, families.WORDS) if items[0] in pool)
        items = [rng.choice([other for other in alike if other != items[0]])]
    text = task.separator.join(items)
    return text.upper() if task.capitals else text


def _chatter(task: Task, rng: Random) -> str:
    opener, closer = rng.choice(((True, False), (False, True), (True, True)))
    return (rng.choice(_OPENERS) if opener else "") + task.answer + (rng.choice(_CLOSERS) if closer else "")


_FLAWS: dict[Flaw, Callable[[Task, Random], str]] = {
    "disclaimer": lambda task, rng: rng.choice(_DISCLAIMERS) + task.answer,
    "refusal": lambda task, rng: rng.choice(_REFUSALS),
    "chatter": _chatter,
    "case": _wrong_case,
    "format": _wrong_format,
    "wrong": _wrong,
}


def _find(instruction: str, task: Task, answer: str) -> tuple[str | None, str]:
    """The part of an answer that gives the right items in order, in any case and format, and the talk around it.

    Talk is whole sentences or lines before or after, and says something that is not of the prompt or the world's words:
    a longer list that happens to hold the right items is wrong, not chatty.
    """
    items = r"[\s,;\-]+".join(re.escape(item) for item in task.items)
    stands = rf"(?P<stands>[\-\"'\s]*{items}[\"'.]*)"
    pattern = rf"(?P<before>(?:.*[.!?:\n]\s*)?){stands}(?P<after>(?:(?:\s*\n|(?<=[.!?])\s).*)?)"
    match = re.fullmatch(pattern, answer.strip(), re.IGNORECASE | re.DOTALL)
    if match is None:
        return None, ""
    talk = f"{match['before']} {match['after']}".strip()
    plain = {*re.findall(r"[a-z]+", instruction.lower()), *families.WORDS, *families.LETTERS}
    if talk and not set(re.findall(r"[a-z]+", talk.lower())) - plain:
        return None, ""
    return match["stands"].strip(), talk


def _letters(text: str) -> str:
    return "".join(character for character in text if character.isalpha())
