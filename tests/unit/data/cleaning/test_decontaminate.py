"""Which messages hold a benchmark's prompt."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.cleaning.benchmark_files import BenchmarkPrompt
from zephyr_ray.data.cleaning.decontaminate import LONG, LONGER, SHORTEST, Benchmarks, checked
from zephyr_ray.schemas import Dropped, Reason

FIFTEEN = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences"
SEEDS = "What happens to you if you eat watermelon seeds?"
VEINS = "Why do veins appear blue?"
CAFE = "In which city does the Caf\u00e9 de Flore stand, and what's the year 1,887 to it?"
LETTER = "Dear friend, it has been a long while since we last met by the sea, and I hope you are well. "


def benchmarks(*texts: str, words: int = 13) -> Benchmarks:
    return Benchmarks(tuple(BenchmarkPrompt("b.txt", n, text) for n, text in enumerate(texts, 1)), words)


def holds(message: str, *texts: str, words: int = 13, role: str = "user") -> bool:
    return benchmarks(*texts, words=words).index().find([{"role": role, "content": message}]) is not None


def test_a_whole_benchmark_prompt_whatever_its_punctuation() -> None:
    assert holds("Please answer: WHY do veins  appear blue -- and be brief.", VEINS)
    assert holds(f"{LETTER}Why do veins appear blue, then?", VEINS)
    assert not holds(f"{LETTER}Why do veins appear?", VEINS)


def test_few_words_count_as_a_whole_message_alone() -> None:
    assert SHORTEST == 5
    assert holds("WHO are you, to-day?!", "Who are you today?")
    assert not holds("Tell me: who are you today?", "Who are you today?")
    assert not holds("Who are you then?", "Who are you today?")
    assert not holds("?!", "...", "Who are you today?")
    assert holds(f"{LETTER}Tell me: who are you today then?", "Who are you today then?")


def test_a_run_of_words_is_enough() -> None:
    words = FIFTEEN.split()
    assert len(words) == 15
    assert holds(f"{LETTER}{' '.join(words[2:])}", FIFTEEN)
    assert holds(f"{LETTER}{' '.join(words[4:])}", FIFTEEN)  # 11 of 13
    assert not holds(f"{LETTER}{' '.join(words[5:])}", FIFTEEN)
    assert holds(f"{LETTER}{' '.join(words[5:])}", FIFTEEN, words=12)
    assert holds("one two three four", "zero one two three", words=3)
    assert not holds("one two four", "zero one two three", words=3)


@pytest.mark.parametrize(
    "message",
    [
        SEEDS.replace("watermelon", "water\u00admelon"),
        SEEDS.replace("watermelon", "water\u200bmelon"),
        SEEDS.replace("watermelon", "**water**melon"),
        SEEDS.replace("watermelon", "water-melon"),
        SEEDS.replace("watermelon", "water melon"),
        SEEDS.replace(" ", "\u00a0"),
        SEEDS.replace(" ", "&nbsp;"),
        SEEDS.replace("happens", "h\u0430pp\u0435ns"),
        "".join(chr(ord(char) + 0xFEE0) if char.isalnum() else char for char in SEEDS),
        SEEDS.replace("you ", "you\u2018re "),
        SEEDS.replace("seeds", "seed"),
        SEEDS.replace("eat", "ever eat"),
        SEEDS.replace("What happens", "What'd happen"),
        SEEDS.replace("to you ", ""),
    ],
)
def test_what_hides_no_prompt(message: str) -> None:
    assert holds(message, SEEDS)
    assert holds(f"Hello! {message} Thanks.", SEEDS)


def test_other_scripts() -> None:
    assert holds(
        "\u0e16\u0e32\u0e21: \u0e17\u0e33\u0e44\u0e21\u0e1f\u0e49\u0e32",
        "\u0e17\u0e4d\u0e32\u0e44\u0e21\u0e1f\u0e49\u0e32",
    )
    hindi = "\u0906\u0915\u093e\u0936 \u0928\u0940\u0932\u093e \u0915\u094d\u092f\u094b\u0902 \u0939\u0948 \u0905\u092c"
    assert holds(f"\u092c\u0924\u093e\u0913 {hindi}?", hindi)
    chinese = "\u4e3a\u4ec0\u4e48\u5929\u7a7a\u662f\u84dd\u8272\u7684"
    assert holds("\u4e3a\u4ec0\u4e48 \u5929\u7a7a \u662f\u84dd\u8272\u7684", chinese)
    assert not holds(chinese[:-2], chinese)  # few letters: no edit


def test_a_changed_word_in_a_short_prompt_needs_a_message_about_it() -> None:
    stand = "What does ADIDAS stand for?"
    assert holds("Please, what does INRI stand for?", stand)
    assert holds("What does ADIDAS mean then?", "What does the ADIDAS mean then?")
    assert not holds(f"{LETTER}What does INRI stand for?", stand)
    assert holds(f"{LETTER}What does ADIDAS really stand for?", stand)  # nothing was changed
    assert not holds(f"{LETTER}What does ADIDAS now really stand for?", stand)


def test_a_message_with_the_same_frame_is_about_something_else() -> None:
    moss = "Which of the following is NOT a feature of moss?"
    assert not holds(f"{LETTER}Which of the following is not a town of Peru?", moss)
    assert not holds("Which of the following is a steep hill?", "Which of the following is a deep valley?")
    assert holds(f"{LETTER}Which of the following is no feature of moss?", moss)
    assert holds(f"{LETTER}Which of the following is NOT a trait of moss?", moss)
    tea = "What is the best tea?"
    assert not holds("What is the best way to learn to sing?", tea)
    assert holds("Please: what is the best beer?", tea)
    assert holds("What is the very best tea to drink in bed?", tea)


def test_how_many_words_may_change_within_a_longer_message() -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    for size, most in ((LONG - 1, 0), (LONG, 1), (LONGER - 1, 1), (LONGER, 2)):
        prompt = words[:size]
        for changes in range(4):
            said = [*prompt[: size - changes], *["x"] * changes]
            assert holds(LETTER + " ".join(said), " ".join(prompt)) == (changes <= most)


def test_an_answer_counts_where_it_quotes_a_long_prompt_unchanged() -> None:
    quoted = f"You ask: {SEEDS} Nothing."
    assert len(SEEDS.split()) == LONG + 1
    assert holds(quoted, SEEDS, role="assistant")
    assert not holds(quoted.replace("eat", "ever eat"), SEEDS, role="assistant")
    assert not holds(quoted.replace("eat", "swallow"), SEEDS, role="assistant")
    assert not holds(f"You ask: {VEINS} Light.", VEINS, role="assistant")
    assert not holds("Who are you today?", "Who are you today?", role="assistant")
    assert holds(f"{LETTER}{VEINS}", VEINS, role="system")


def test_the_detail_names_what_was_found() -> None:
    index = benchmarks("Who was it?", VEINS, "Why do bones appear blue?").index()
    answer = {"role": "assistant", "content": "Thanks"}
    with pytest.raises(Dropped) as caught:
        index.check(
            [{"role": "user", "content": "Hi"}, answer, {"role": "user", "content": "Why do bones appear blue?"}]
        )
    assert (caught.value.reason, caught.value.detail) == (Reason.CONTAMINATED, "b.txt:3: Why do bones appear blue?")
    index.check([{"role": "user", "content": "Hi"}, answer])


def test_a_piece_that_many_prompts_have_leads_nowhere_but_no_prompt_is_lost() -> None:
    prompts = [f"Which of the following is {name} now?" for name in ("red", "blue", "green")]
    many = [f"Which of the following are in group {number}?" for number in range(100)]
    index = benchmarks(*prompts, *many, *["which of the following"] * 60, words=13).index()
    for number, prompt in enumerate([*prompts, *many], 1):
        found = index.find([{"role": "user", "content": f"{LETTER}{prompt}"}])
        assert found is not None
        assert found.line == number


def test_checked_rows() -> None:
    def to_row(raw):
        return {"messages": [{"role": "user", "content": raw["text"]}]}

    assert checked(to_row, None) is to_row
    check = checked(to_row, benchmarks(VEINS))
    assert check({"text": "Hi"}) == to_row({"text": "Hi"})
    with pytest.raises(Dropped):
        check({"text": VEINS})


@given(
    st.lists(st.sampled_from("abcdef"), max_size=30),
    st.lists(st.sampled_from("abcdef"), max_size=12),
    st.integers(3, 9),
)
def test_what_a_slow_search_finds_is_found(text: list[str], wanted: list[str], words: int) -> None:
    def runs(of: list[str], length: int) -> set[tuple[str, ...]]:
        return {tuple(of[start : start + length]) for start in range(len(of) - length + 1)}

    whole = len(wanted) >= SHORTEST and tuple(wanted) in runs(text, len(wanted))
    if whole or runs(text, words) & runs(wanted, words):
        assert holds(" ".join(text), " ".join(wanted), words=words)


# --- any composition of what hides a prompt

LOOKALIKES = str.maketrans(
    "aceopxyisABCEHKMOPTX",
    "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0456\u0455\u0410\u0412\u0421\u0415\u041d\u041a\u041c\u041e\u0420\u0422\u0425",
)
BY_CHARACTER = {
    "composed": lambda text: unicodedata.normalize("NFC", text),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "without accents": lambda text: "".join(
        c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)
    ),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text),
    "look-alikes": lambda text: text.translate(LOOKALIKES),
    "quotes": lambda text: text.replace("'", "\u2018"),
    "number": lambda text: text.replace("1,887", "1887"),
    "capitals": str.upper,
}
WITHIN = ("\u00ad", "\u200b", "\u2060", "**", "-")
PROMPTS = (
    CAFE,
    "Who first wrote the Na\u00efve R\u00e9sum\u00e9 of Europe?",
    SEEDS,
    FIFTEEN,
    "Describe five key principles in evaluating an argument in analytical writing.",
)


@st.composite
def hidden(draw: st.DrawFn) -> tuple[str, str]:
    """A prompt of eight words or more, and a message in which it is hidden."""
    prompt = draw(st.sampled_from(PROMPTS))
    words = prompt.split()
    if draw(st.booleans()):
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(("purple", "x", "thing")))
    for mark in draw(st.lists(st.sampled_from(WITHIN), unique=True)):
        at = draw(st.integers(0, len(words) - 1))
        place = draw(st.integers(0, len(words[at])))
        inside = 0 < place < len(words[at]) and words[at][place - 1].isalpha() and words[at][place].isalpha()
        words[at] = words[at][:place] + mark + words[at][place:] if inside else words[at]
    if draw(st.booleans()):
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(("really", "now", "of"))))
    text = " ".join(words)
    for name in draw(st.lists(st.sampled_from(sorted(BY_CHARACTER)), unique=True)):
        text = BY_CHARACTER[name](text)
    text = text.replace(" ", draw(st.sampled_from((" ", "\u00a0", "&nbsp;", "&nbsp; "))))  # as a page's source has them
    return prompt, draw(st.sampled_from(("{}", "Please answer: {}", LETTER + "{} Thank you so much."))).replace(
        "{}", text
    )


@given(hidden())
def test_no_composition_hides_a_prompt_of_eight_words(case: tuple[str, str]) -> None:
    prompt, message = case
    assert len(re.findall(r"[\w'-]+", prompt)) >= LONG
    assert HIDDEN.find([{"role": "user", "content": message}]) is not None, message


HIDDEN = benchmarks(*PROMPTS).index()
