"""Writes dialogues, real ones and made-up ones with known flaws, for benchmarks/dialogues.py."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

FILES = 4
FOLDERS = ("messages", "texts")
"""Of the same dialogues: JSON lines with the messages, and with their contents as one text."""

_REAL = 0.625
_SENTENCES = 20_000
_FLAWS = {
    "repeated": 0.05,
    "nearly": 0.05,
    "capitalized": 0.05,
    "disclaims": 0.05,
    "miscoded": 0.03,
    "email": 0.03,
    "cut": 0.02,
    "loop": 0.01,
}
"""The share of made-up dialogues with each flaw; no dialogue has two."""
_EARLIER = 200  # made-up dialogues that another may repeat


def prepare(work: Path, data: Sequence[str], count: int) -> dict[str, int]:
    """Writes so many dialogues: real ones, at most `_REAL` of them, then made-up ones.

    Returns:
        How many are real, how many are made up, and the characters of all.
    """
    numbers = {"real": 0, "synthetic": 0, "characters": 0}
    with ExitStack() as stack:
        streams = []
        for folder in FOLDERS:
            (work / folder).mkdir(parents=True)
            paths = [work / folder / f"{number}.jsonl" for number in range(FILES)]
            streams.append([stack.enter_context(path.open("w", encoding="ascii")) for path in paths])
        chosen = _chosen(list(real(data)), int(count * _REAL))
        kinds = itertools.chain((("real", each) for each in chosen), (("synthetic", each) for each in synthetic()))
        for number, (kind, messages) in enumerate(itertools.islice(kinds, count)):
            text = "\n\n".join(message["content"] for message in messages)
            for row, files in zip(({"messages": messages}, {"text": text}), streams, strict=True):
                files[number % FILES].write(json.dumps(row) + "\n")
            numbers[kind] += 1
            numbers["characters"] += len(text)
    return numbers


def real(files: Sequence[str]) -> Iterator[list[dict[str, str]]]:
    """The dialogues of files in any known layout; rows that are none are left out."""
    import pyarrow as pa

    from zephyr_ray.data.formats import layouts
    from zephyr_ray.data.io import readers, rows, sources
    from zephyr_ray.schemas import Dropped

    for part in sources.parts_of(tuple(files)) if files else ():
        for chunk in readers.read_part(pa.Table.from_pylist([part])):
            for _, value in rows.raw_rows(readers.split_lines(chunk)):
                try:
                    messages = layouts.dialogue_messages(rows.decode(value))
                    yield [{"role": each["role"], "content": each["content"]} for each in messages]
                except Dropped:
                    continue


def _chosen(dialogues: list[list[dict[str, str]]], most: int) -> list[list[dict[str, str]]]:
    """All of them, or so many drawn at random, in their order."""
    numbers = range(len(dialogues))
    return [dialogues[number] for number in sorted(random.Random(0).sample(numbers, min(most, len(numbers))))]


def synthetic() -> Iterator[list[dict[str, str]]]:
    """Dialogues without end, the same ones in each call: one to four exchanges of sentences whose words follow each
    other in this repository's documentation, some with flaws (`_FLAWS`)."""
    rng = random.Random(0)
    sentences = _sentences(rng)
    earlier: list[list[dict[str, str]]] = []
    flaws, shares = list(_FLAWS), list(itertools.accumulate(_FLAWS.values()))
    while True:
        messages = []
        for _ in range(rng.randint(1, 4)):
            for role, fewest, most in (("user", 1, 3), ("assistant", 4, 12)):
                content = " ".join(rng.choices(sentences, k=rng.randint(fewest, most)))
                messages.append({"role": role, "content": content})
        drawn = rng.random()
        flaw = next((name for name, share in zip(flaws, shares, strict=True) if drawn < share), None)
        messages = _with_flaw(messages, flaw, rng, earlier or [messages])
        earlier = [*earlier[1 - _EARLIER :], messages]
        yield messages


def _with_flaw(
    messages: list[dict[str, str]], flaw: str | None, rng: random.Random, earlier: list[list[dict[str, str]]]
) -> list[dict[str, str]]:
    *others, last = messages
    answer = last["content"]
    match flaw:
        case "repeated":
            return rng.choice(earlier)
        case "nearly":
            *others, last = rng.choice(earlier)
            answer = f"{last['content']} {rng.randrange(10**6)}."
        case "capitalized":
            answer = answer.capitalize()
        case "disclaims":
            answer = f"As an AI language model, I do not have personal opinions. {answer}"
        case "miscoded":
            answer = f"That\u2019s it \u2014 {answer}".encode().decode("cp1252")
        case "email":
            answer = f"{answer} Write to jane.{rng.randrange(10**6)}@mail.net for more."
        case "cut":
            answer = answer[: -rng.randint(5, 30)]
        case "loop":
            answer = f"{answer} " + 30 * (answer.split(". ")[0] + ". ")
    return [*others, {**last, "content": answer}]


def _sentences(rng: random.Random) -> list[str]:
    """Sentences of 6 to 30 words, each word after one that it follows somewhere in the documentation."""
    docs = sorted((Path(__file__).resolve().parents[1] / "docs").glob("*.md"))
    lines = (line for path in docs for line in path.read_text(encoding="utf-8").splitlines())
    prose = " ".join(line for line in lines if re.match(r"[A-Za-z]", line))
    words = [word for word in prose.split() if re.fullmatch(r"[A-Za-z]+[,;:]?", word)]
    after: dict[str, list[str]] = {}
    for word, following in itertools.pairwise(words):
        after.setdefault(word, []).append(following)
    made = []
    for _ in range(_SENTENCES):
        sentence = [rng.choice(words)]
        for _ in range(rng.randint(5, 29)):
            sentence.append(rng.choice(after.get(sentence[-1], words)))
        text = " ".join(sentence).rstrip(",;:")
        made.append(text[0].upper() + text[1:] + rng.choice("....?!"))
    return made


def make_lexicon(folder: Path) -> Any:
    """The case lexicon of the dialogues in a folder (`FOLDERS`)."""
    from zephyr_ray.data.cleaning import case_lexicon

    counts = case_lexicon.CaseCounts()
    for path in sorted(folder.iterdir()):
        with path.open(encoding="ascii") as lines:
            while block := [json.loads(line)["messages"] for line in itertools.islice(lines, 2_000)]:
                counts.add(case_lexicon.count(block))
    return case_lexicon.make_lexicon(counts)
