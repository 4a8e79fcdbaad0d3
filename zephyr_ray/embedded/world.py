"""Generate prompts, a teacher's dialogues and scored completions of simulated models, which a program can check.

There are a dozen kinds of small instructions (`families.py`), whose one right answer follows from the prompt's text.
The teacher and the simulated models know the answer and often give it badly, as real models do: with an empty
disclaimer, a needless refusal, chatter around the answer, the wrong case or the wrong format.
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
"""The flaws of the teacher's demonstrations; all that apply are equally likely."""

MODELS: dict[str, dict[Flaw, float]] = {
    "tiny-careful": {"disclaimer": 0.02, "chatter": 0.05, "case": 0.02, "format": 0.04, "wrong": 0.02},
    "tiny-chatty": {"chatter": 0.65, "disclaimer": 0.1, "format": 0.1, "wrong": 0.05},
    "tiny-lawyer": {"disclaimer": 0.65, "refusal": 0.15, "chatter": 0.1},
    "tiny-shouty": {"case": 0.6, "chatter": 0.2, "format": 0.1},
    "tiny-sloppy": {"format": 0.6, "wrong": 0.2, "case": 0.1},
    "tiny-timid": {"refusal": 0.65, "disclaimer": 0.25},
}
"""The simulated models: the probability of each flaw; otherwise a completion is right."""

_COMPLETIONS_PER_PROMPT = 4
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
    """The one right answer to an instruction.

    Raises:
        ValueError: The text is not an instruction of this world.
    """
    return families.parse(instruction).answer


def passes(instruction: str, completion: str) -> bool:
    """Whether a completion is exactly the right answer in the requested format, apart from surrounding whitespace."""
    return completion.strip() == solve(instruction)


def rate(instruction: str, completion: str) -> float:
    """An overall score from 1 to 10.

    10 is a pass and 1 a refusal or a wrong answer. A right answer loses 2 for a wrong format, 3 for wrong case, 4 for
    chatter around it and 5 for a disclaimer; flaws add up, but the score never falls below 2.
    """
    task = families.parse(instruction)
    if completion.strip() == task.answer:
        return 10.0
    given, talk = _find_answer(instruction, task, completion)
    if given is None:
        return 1.0
    lost = 0
    if given.lower() != task.answer.lower():
        lost += 2
    if _letters(given) != _letters(task.answer):
        lost += 3
    if talk:
        lost += 5 if re.search(r"\b(AI|language model)\b", talk, re.IGNORECASE) else 4
    return float(max(2, 10 - lost))


def judge(messages: Sequence[Mapping[str, str]], completion: str) -> float | None:
    """The score of a completion of a one-instruction conversation; None if it is not of this world.

    For `judging.judge: {type: function, function: zephyr_ray.embedded.world:judge}` in a recipe.
    """
    said = [message for message in messages if message["role"] != "system"]
    if len(said) != 1 or said[0]["role"] != "user":
        return None
    try:
        return rate(said[0]["content"], completion)
    except ValueError:
        return None


def split_of(instruction: str) -> Split:
    """The split of an instruction, a function of its text, so that splits are disjoint."""
    bucket = hashlib.blake2b(instruction.encode(), digest_size=1).digest()[0]
    if bucket < 26:
        return "held_out"
    return "preferences" if bucket < 77 else "dialogues"


def prompts(split: Split, count: int, seed: int) -> Iterator[str]:
    """Draws distinct prompts of a split. The same seed gives the same prompts; a larger count only adds more.

    Raises:
        ValueError: The split does not have that many prompts.
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
        completion = respond(instruction, flaw, rng)
        messages = [{"role": "user", "content": instruction}, {"role": "assistant", "content": completion}]
        yield {"messages": messages, "source": f"tiny:{families.parse(instruction).family}"}


def completions(
    count: int, seed: int, split: Literal["preferences", "held_out"] = "preferences"
) -> Iterator[dict[str, Any]]:
    """Scored completions of the prompts of a split, in UltraFeedback's layout.

    {instruction, completions: [{model, response, overall_score} x 4], source}; the scores are those of `rate`. The
    careful model completes every prompt, together with three other models.
    """
    rng = Random(f"completions {seed}" if split == "preferences" else f"completions {split} {seed}")
    careful, *others = MODELS
    for instruction in prompts(split, count, seed):
        scored = []
        for model in rng.sample([careful, *rng.sample(others, _COMPLETIONS_PER_PROMPT - 1)], _COMPLETIONS_PER_PROMPT):
            response = respond(instruction, _draw_flaw(MODELS[model], rng), rng)
            scored.append({"model": model, "response": response, "overall_score": rate(instruction, response)})
        yield {
            "instruction": instruction,
            "completions": scored,
            "source": f"tiny:{families.parse(instruction).family}",
        }


def respond(instruction: str, flaw: Flaw | None, rng: Random) -> str:
    """A completion with the flaw, or the right answer. Digits have no case, so there `case` becomes `format`."""
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


def _answer_in_wrong_case(task: Task, rng: Random) -> str:
    return task.answer.lower() if task.capitals else task.answer.upper()


def _answer_in_wrong_format(task: Task, rng: Random) -> str:
    text = task.answer
    if len(task.items) > 1:
        separator = rng.choice([other for other in families.SEPARATORS.values() if other != task.separator])
        return text.replace(task.separator, separator)
    return rng.choice((f'"{text}"', f"{text}.", f"- {text}"))


def _near_miss(task: Task, rng: Random) -> str:
    """A near miss: a number off by one or two, a list with two items swapped, another word or letter."""
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


def _answer_with_chatter(task: Task, rng: Random) -> str:
    opener, closer = rng.choice(((True, False), (False, True), (True, True)))
    return (rng.choice(_OPENERS) if opener else "") + task.answer + (rng.choice(_CLOSERS) if closer else "")


_FLAWS: dict[Flaw, Callable[[Task, Random], str]] = {
    "disclaimer": lambda task, rng: rng.choice(_DISCLAIMERS) + task.answer,
    "refusal": lambda task, rng: rng.choice(_REFUSALS),
    "chatter": _answer_with_chatter,
    "case": _answer_in_wrong_case,
    "format": _answer_in_wrong_format,
    "wrong": _near_miss,
}


def _find_answer(instruction: str, task: Task, completion: str) -> tuple[str | None, str]:
    """The part of a completion with the right items in order, in any case and format, and the talk around it.

    Talk is whole sentences or lines before or after, with words that are neither in the prompt nor among the world's: a
    longer list that happens to hold the right items is wrong, not chatty.
    """
    items = r"[\s,;\-]+".join(re.escape(item) for item in task.items)
    given = rf"(?P<given>[\-\"'\s]*{items}[\"'.]*)"
    pattern = rf"(?P<before>(?:.*[.!?:\n]\s*)?){given}(?P<after>(?:(?:\s*\n|(?<=[.!?])\s).*)?)"
    match = re.fullmatch(pattern, completion.strip(), re.IGNORECASE | re.DOTALL)
    if match is None:
        return None, ""
    talk = f"{match['before']} {match['after']}".strip()
    plain = {*re.findall(r"[a-z]+", instruction.lower()), *families.WORDS, *families.LETTERS}
    if talk and not set(re.findall(r"[a-z]+", talk.lower())) - plain:
        return None, ""
    return match["given"].strip(), talk


def _letters(text: str) -> str:
    return "".join(character for character in text if character.isalpha())
