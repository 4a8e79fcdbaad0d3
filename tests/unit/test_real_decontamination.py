"""Real benchmarks, where they are: hidden in what ways they may be, they are found, and hardly anything else is."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zephyr_ray.data.cleaning.decontaminate import LONG, SHORTEST, BenchmarkIndex, read_benchmarks
from zephyr_ray.data.cleaning.folded_words import words_of

DATA = Path(os.environ.get("ZEPHYR_TEST_DATA", ""))
pytestmark = pytest.mark.usefixtures("outside_data")

SUBJECTS = ("abstract_algebra", "computer_security", "high_school_biology", "world_religions")
FILES = (
    "mt_bench_question.jsonl",
    "vicuna_bench_question.jsonl",
    "truthful_qa_questions.txt",
    *(f"mmlu/test/{subject}_test.csv" for subject in SUBJECTS),
)
LETTER = "It is a while since I wrote to you, and in this time much has happened here that you would like to hear of. "
LOOKALIKES = str.maketrans(
    "aceopxyABCEHKMOPTX",
    "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0410\u0412\u0421\u0415\u041d\u041a\u041c\u041e\u0420\u0422\u0425",
)

TRUE_OVERLAPS: set[str] = set()
"""Prompts of T0 and HaluEval that hold a benchmark's, by reading: none does."""


@pytest.fixture(scope="module")
def index() -> BenchmarkIndex:
    benchmarks = read_benchmarks([str(DATA / "benchmarks" / name) for name in FILES], 13, "prompts.decontaminate")
    assert benchmarks is not None
    assert len(benchmarks.prompts) == 160 + 80 + 817 + 681
    return benchmarks.index()


def within_a_word(mark: str, rng: random.Random) -> Callable[[str], str]:
    def put(text: str) -> str:
        words = list(re.finditer("[A-Za-z]{4,}", text))
        if not words:
            return text
        word = rng.choice(words)
        place = rng.randrange(word.start() + 1, word.end())
        return text[:place] + mark + text[place:]

    return put


def perturbations(rng: random.Random) -> dict[str, Callable[[str], str]]:
    def inserted(text: str) -> str:
        words = text.split(" ")
        words.insert(rng.randrange(1, max(2, len(words))), rng.choice(("really", "the", "purple")))
        return " ".join(words)

    def changed(text: str) -> str:
        words = text.split(" ")
        words[rng.randrange(len(words))] = rng.choice(("thing", "some", "Paris"))
        return " ".join(words)

    def accents(text: str) -> str:
        return "".join(char + "\u0301" if char in "aeiou" and rng.random() < 0.3 else char for char in text)

    return {
        "none": str,
        "NFD": lambda text: unicodedata.normalize("NFD", text),
        "accents": lambda text: unicodedata.normalize("NFC", accents(text)),
        "soft hyphen": within_a_word("\u00ad", rng),
        "zero width": within_a_word("\u200b", rng),
        "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        "look-alikes": lambda text: text.translate(LOOKALIKES),
        "quotes": lambda text: text.replace("'", "\u2018").replace('"', "\u201c"),
        "nbsp": lambda text: text.replace(" ", "&nbsp;"),
        "markdown": within_a_word("**", rng),
        "thousands": lambda text: re.sub(r"(?<!\d)(\d)(\d{3})(?!\d)", r"\1,\2", text.replace(",000", "000")),
        "hyphen": within_a_word("-", rng),
        "capitals": str.upper,
        "inserted": inserted,
        "changed": changed,
        "inserted and changed": lambda text: changed(inserted(text)),
    }


def is_asked(name: str, words: int, around: str) -> bool:
    """Whether a prompt of so many words counts when it is hidden so: very short ones do as whole messages alone."""
    if words < SHORTEST:
        return around == "{}" and "ed" not in name
    is_changed = "changed" in name
    return not is_changed or words >= LONG or (name == "changed" and len(around) < len(LETTER))


def test_recall(index: BenchmarkIndex) -> None:
    rng = random.Random(0)
    asked, missed = 0, 0
    for around in ("{}", "Please answer: {}", LETTER + "{} Thank you very much for your help."):
        for name, hide in perturbations(rng).items():
            for prompt in rng.sample(index.prompts, 600):
                if is_asked(name, len(words_of(prompt.text)), around):
                    asked += 1
                    message = {"role": "user", "content": around.replace("{}", hide(prompt.text))}
                    missed += index.find([message]) is None
    assert asked > 25_000
    assert 1 - missed / asked >= 0.999


def prompts_of(name: str, key: str) -> Iterator[str]:
    with gzip.open(DATA / "dialogues" / name, "rt", encoding="utf-8") as lines:
        yield from {json.loads(line)[key]: None for line in lines}


def test_precision(index: BenchmarkIndex) -> None:
    others = [
        *prompts_of("t0_prompts_completions.jsonl.gz", "prompt"),
        *prompts_of("halueval_chatgpt.jsonl.gz", "user_query"),
    ]
    assert len(others) == 52_020 + 4_507
    found = [text for text in others if index.find([{"role": "user", "content": text}]) is not None]
    assert set(found) >= TRUE_OVERLAPS
    assert len(set(found) - TRUE_OVERLAPS) <= 0.001 * len(others)
