"""What is a benchmark's prompt, and which prompts hold one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.cleaning.decontaminate import (
    SHORTEST,
    BenchmarkPrompt,
    Benchmarks,
    describe_benchmarks,
    read_benchmarks,
    words_of,
)
from zephyr_ray.errors import UserError
from zephyr_ray.schemas import Dropped, Reason

LONG = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences"


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def benchmarks(*texts: str, words: int = 13) -> Benchmarks:
    return Benchmarks(tuple(BenchmarkPrompt("b.txt", n, text) for n, text in enumerate(texts, 1)), words)


def holds(prompt: str, *texts: str, words: int = 13) -> bool:
    return benchmarks(*texts, words=words).index().find([user(prompt)]) is not None


def test_words() -> None:
    assert (
        words_of("Don\u2019t  STOP, e-mail_me\n2x!")
        == words_of("don't stop e mail me 2x")
        == ["dont", "stop", "e", "mail", "me", "2x"]
    )
    assert words_of("Stra\u00dfe \u4f60\u597d") == ["strasse", "\u4f60", "\u597d"]


@given(st.text(st.characters(codec="ascii")))
def test_ascii_has_the_same_words_on_the_short_way(text: str) -> None:
    assert words_of(text) == [word for word in words_of(f"{text} \u00e9") if word != "\u00e9"]


def test_a_whole_benchmark_prompt_whatever_its_punctuation() -> None:
    assert holds("Please answer: WHY do veins  appear blue -- and be brief.", "Why do veins appear blue?")
    assert not holds("Why do veins appear bluer?", "Why do veins appear blue?")  # words, not letters
    assert not holds("Why do veins, then, appear blue?", "Why do veins appear blue?")


def test_a_prompt_of_few_words_says_nothing() -> None:
    assert SHORTEST == 5
    assert not holds("Tell me: who are you today?", "Who are you today?")
    assert holds("Tell me: who are you today then?", "Who are you today then?")


def test_a_run_of_words_is_enough() -> None:
    words = LONG.split()
    assert len(words) == 15
    assert holds(f"A task. {' '.join(words[2:])}", LONG)  # its last 13
    assert not holds(f"A task. {' '.join(words[3:])}", LONG)  # 12 of them
    assert holds(f"A task. {' '.join(words[3:])}", LONG, words=12)
    assert holds("one two three four", "zero one two three", words=3)


def test_every_message_of_the_user_counts_and_none_of_the_assistant() -> None:
    index = benchmarks("Why do veins appear blue?").index()
    answer = {"role": "assistant", "content": "You ask: why do veins appear blue?"}
    assert index.find([user("Hi"), answer, user("Thanks")]) is None
    assert index.find([user("Why do veins appear blue?"), answer, user("Thanks")]) is not None
    with pytest.raises(Dropped) as caught:
        index.check([user("Hi"), answer, user("Why do veins appear blue?")])
    assert (caught.value.reason, caught.value.detail) == (Reason.CONTAMINATED, "b.txt:1: Why do veins appear blue?")


@given(
    st.lists(st.sampled_from("abcdef"), max_size=30),
    st.lists(st.sampled_from("abcdef"), max_size=12),
    st.integers(3, 9),
)
def test_found_is_what_a_slow_search_finds(text: list[str], wanted: list[str], words: int) -> None:
    def runs(of: list[str], length: int) -> set[tuple[str, ...]]:
        return {tuple(of[start : start + length]) for start in range(len(of) - length + 1)}

    whole = len(wanted) >= SHORTEST and tuple(wanted) in runs(text, len(wanted))
    assert holds(" ".join(text), " ".join(wanted), words=words) == (
        whole or bool(runs(text, words) & runs(wanted, words))
    )


def test_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "mt.jsonl").write_text('{"turns": ["first turn", "second turn"]}\n\n{"turns": ["third"]}\n')
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "an instruction"}, {"instruction": "more"}]))
    (tmp_path / "text.txt").write_text(
        "plain {text}\n'a \\'literal\\''\n\n{'instruction': 'a dict'}\n'no literal\n{no dict}\n"
    )
    (tmp_path / "zip.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "packed"}\n"bare"'))
    names = [str(tmp_path / name) for name in ("mt.jsonl", "alpaca.json", "text.txt", "zip.jsonl.gz")]
    found = read_benchmarks(names, 13)
    assert found is not None
    assert [(prompt.file, prompt.line, prompt.text) for prompt in found.prompts] == [
        ("mt.jsonl", 1, "first turn"),
        ("mt.jsonl", 1, "second turn"),
        ("mt.jsonl", 3, "third"),
        ("alpaca.json", 1, "an instruction"),
        ("alpaca.json", 2, "more"),
        ("text.txt", 1, "plain {text}"),
        ("text.txt", 2, "a 'literal'"),
        ("text.txt", 4, "a dict"),
        ("text.txt", 5, "'no literal"),
        ("text.txt", 6, "{no dict}"),
        ("zip.jsonl.gz", 1, "packed"),
        ("zip.jsonl.gz", 2, "bare"),
    ]
    assert read_benchmarks([], 13) is None


def test_what_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    for name, content, message in (
        ("bad.jsonl", b"{", r"bad\.jsonl:1 is not JSON"),
        ("keys.jsonl", b'{"text": "x"}', r"keys\.jsonl:1 has no prompt"),
        ("turns.jsonl", b'{"turns": ["x", 3]}', r"turns\.jsonl:1 has no prompt"),
        ("bytes.txt", b"\xff\xfe", "no text in UTF-8"),
        ("empty.txt", b"\n", "holds no benchmark prompt"),
        ("broken.jsonl.gz", b"no gzip", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_benchmarks([str(tmp_path / name)], 13)
    with pytest.raises(UserError, match=r"decontaminate: .*nowhere\.txt cannot be read"):
        read_benchmarks([str(tmp_path / "nowhere.txt")], 13)


def test_the_fingerprint_is_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a")
    two.write_text("a")
    assert describe_benchmarks([str(one)]) == describe_benchmarks([str(two)])
    two.write_text("b")
    assert describe_benchmarks([str(one)]) != describe_benchmarks([str(two)])
