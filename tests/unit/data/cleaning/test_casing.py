"""Capitals come back where a turn lost them, and nowhere else."""

from __future__ import annotations

import pickle
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zephyr_ray.data.cleaning.case_lexicon import CaseLexicon, count, make_lexicon
from zephyr_ray.data.cleaning.casing import restore
from zephyr_ray.data.formats.messages import Message

CORPUS = [
    "We flew to Lappeenranta with Maija, and in Lappeenranta we met the team of the Kuiper project.",
    "The people of Lappeenranta like the lake, the forest and the quiet of long summer days.",
    "It was found that the Kuiper project of NOAO may be late, and may need more money.",
    "They saw the Kuiper project grow, and it may open in May or in June at the latest.",
]


@cache
def lexicon() -> CaseLexicon:
    """Of a small corpus, ten times, so that no word in it is rare."""
    return make_lexicon(count([dialogue("Tell me.", text) for text in CORPUS * 10]))


def dialogue(*contents: str) -> list[Message]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(contents)]


def restored(answer: str, prompt: str = "Tell me more about it.") -> str:
    before = dialogue(prompt, answer)
    after = restore(before, lexicon())
    assert after[0] == before[0]
    assert (after is before) == (after == before)
    return after[1]["content"]


def test_a_turn_that_lost_all_capitals_gets_them_back() -> None:
    answer = (
        "I cannot travel. however, i hear that lappeenranta is lovely in may or june, and it may snow in finland.\n\n"
        "1. take the train: it's fast.\n2. ask maija of noao."
    )
    assert restored(answer) == (
        "I cannot travel. However, I hear that Lappeenranta is lovely in May or June, and it may snow in Finland.\n\n"
        "1. Take the train: It's fast.\n2. Ask Maija of NOAO."
    )


def test_names_come_from_the_rest_of_the_dialogue() -> None:
    answer = "I have no data on it. the firm blackbaud and its zyx unit sell software. blackbaud's rivals do not."
    prompt = "What does the firm Blackbaud sell, and what does its ZYX unit of Blackbaud do for it?"
    assert restored(answer, prompt) == (
        "I have no data on it. The firm Blackbaud and its ZYX unit sell software. Blackbaud's rivals do not."
    )


def test_an_acronym_in_brackets_is_known_by_its_initials() -> None:
    answer = "I don't know. use the simple queue broker (sqb) here."
    assert "(SQB)" in restored(answer)
    assert "(she)" in restored("I don't know. use the simple queue broker (she) here.")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("Hello. how are you? it is fine! we know.", "Hello. How are you? It is fine! We know."),
        ("That is true, and i think so. So i'm sure.", "That is true, and I think so. So I'm sure."),
        ("Bake it in an 8-in. pan (Fr. poêle). then rest.", "Bake it in an 8-in. pan (Fr. poêle). Then rest."),
        ("It began in 1990. they left (in 1991). nobody came.", "It began in 1990. They left (in 1991). Nobody came."),
    ],
)
def test_single_starts_get_a_capital(answer: str, wanted: str) -> None:
    assert restored(answer) == wanted


@pytest.mark.parametrize(
    "answer",
    [
        "They sell Pop! figures and the BRAVO! feature, as Yahoo! mail does.",
        "Use fruit, e.g. this one, i.e. that. Cats vs. dogs, approx. five, Mr. smith of Acme Inc. is out.",
        "Wait... what is 3.5 plus 1? An iPhone. iPhone cases cost less.",
        "The roots are (i) and (ii). A loop is `for i in range(3)`. In it i = 2.",
        "Run this:\n```\nHello. how are you? i am here\n```\nThen `Stop. now` and Node.js. `npm ci. then` is next.",
        "Write to i.am@example.org and see https://example.org/a?b. c=d for more. The file a.b is old.",
        "Fruits:\n- apples\n- pears\n1. plums",
        "The quick answer is yes",
        "They met (Lat. for others) and bought a 12-in. ruler and two 5-lb. bags.",
        "Anna: hey, are you in?\nBen: no. i am late, sorry! be there soon\nAnna: ok. see you",
        "1. gifts (e.g. books, cups)\n2. trips (e.g. to the lake)",
        "A verb has many senses:\n1. to go along a path\n2. to be in charge of it\n3. to reach from here to there.",
        "It holds that:\n\n(p + q) * 2 = 8\n\nwhere p and q are two numbers above zero",
        "It stops when i equals 5, because of the test.",
        "The train leaves at 7 p. m. on time",
        "He dons a hat.",
        "Les gens du lac de lappeenranta seraient alors contents de voir une autre rive",
        "old pond. a frog leaps in. i hear the sound of water.",
        "apples. pears",
        "",
        " ",
    ],
)
def test_what_is_no_mistake_stays(answer: str) -> None:
    before = dialogue("Tell me more about it.", answer)
    assert restore(before, lexicon()) is before


@pytest.mark.parametrize(
    "prompt",
    [
        "Your entire response should be in all lowercase letters.",
        "Answer in lower case. ",
        "Reply, without any capital letters.",
        "A poem in the style of E. E. Cummings, please.",
    ],
)
def test_lower_case_that_was_asked_for_stays(prompt: str) -> None:
    before = dialogue(prompt, "I would do it. first, i rest in lappeenranta.")
    assert restore(before, lexicon()) is before


def test_names_in_lower_case_as_the_user_wrote_them_stay() -> None:
    facts = "- name: maija\n\n- town: lappeenranta in finland\n\n- born: june"
    text = "List the facts: maija , born in june , lives in lappeenranta , finland ."
    before = dialogue(text, facts)
    assert restore(before, lexicon()) is before
    one = dialogue("Here is a bio: maija , born in a town of finland .", facts)
    assert restore(one, lexicon()) is one
    assert restored(facts) == "- Name: Maija\n\n- Town: Lappeenranta in Finland\n\n- Born: June"


def test_a_prompt_on_letters_of_both_cases_asks_for_neither() -> None:
    prompt = "Make a password of uppercase and lowercase letters."
    assert restored("I would do it. first, i rest in lappeenranta.", prompt).startswith("I would do it. First, I rest")


def test_a_list_that_is_set_apart_begins_with_capitals() -> None:
    answer = "Here is the list of the lake:\n\n1. people of the forest\n2. days of summer"
    assert restored(answer).endswith("\n\n1. People of the forest\n2. Days of summer")
    assert (
        restored("I saw it. like this i joined the team of the lake.")
        == "I saw it. Like this I joined the team of the lake."
    )


def test_a_letter_that_is_two_in_lower_case_stays_one() -> None:
    assert restored("\u0130 i'm") == "\u0130 I'm"


def test_verses_begin_with_capitals() -> None:
    verses = (
        "The people of the forest\nAnd of the quiet lake\n\nSee the long summer days\nThey like it and it may be\n"
        "That we met the team"
    )
    assert restored(verses.capitalize()) == verses


def test_what_follows_the_head_of_an_item_begins_with_a_capital() -> None:
    item = "1. The lake - this the people of the forest like, and we met the team in the quiet of long summer days.\n"
    assert "- This the people of the forest like" in restored(f"I saw the lake. we met.\n{item.lower()}")
    assert "- this the people of the forest like" in restored(f"I saw the lake. we met.\n{item[3:].lower()}")


def test_users_write_as_they_like() -> None:
    before = dialogue("Hello. how are you? i am in finland", "I am fine.")
    assert restore(before, lexicon()) is before


def test_code_in_a_turn_that_lost_its_capitals_stays() -> None:
    answer = (
        "I cannot run it. do this:\n\n```\nprint(x). hello\n```\n\nor `finland. now`, see www.finland.fi. it works."
    )
    assert restored(answer) == (
        "I cannot run it. Do this:\n\n```\nprint(x). hello\n```\n\nOr `finland. now`, see www.finland.fi. It works."
    )


def test_a_lexicon_is_a_function_of_the_corpus_not_of_its_order() -> None:
    dialogues = [dialogue("Tell me.", text) for text in CORPUS]
    forwards, backwards = count(dialogues[:1]), count(dialogues[3:])
    forwards.add(count(dialogues[1:]))
    backwards.add(count(dialogues[2::-1]))
    one, other = make_lexicon(forwards), make_lexicon(backwards)
    assert pickle.dumps(one.words) == pickle.dumps(other.words)
    assert one.pairs.keys.tolist() == other.pairs.keys.tolist()
    assert one.pairs.counts.tolist() == other.pairs.counts.tolist()
    assert one.endings == other.endings
    assert pickle.loads(pickle.dumps(one)).words == one.words


def test_what_is_counted() -> None:
    counts = count(
        [dialogue("we saw Paris, i said", "The firm ACME of Rome met Rome's mayor in 2010.\nA Day In Rome Town")]
    )
    assert dict(counts.forms) == {
        "firm": 1, "ACME": 1, "of": 1, "Rome": 1, "met": 1, "Rome's": 1, "mayor": 1, "in": 1, "2010": 1
    }  # fmt: skip


def test_a_tally_forgets_the_rarest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zephyr_ray.data.cleaning.case_lexicon.FORMS", 4)
    monkeypatch.setattr("zephyr_ray.data.cleaning.case_lexicon.PAIRS", 3)
    counts = count([dialogue("Tell me.", "See Rome. See the big lake and the big tree.")])
    counts.add(count([dialogue("Tell me.", "See the big lake and the old tree. I saw it.")]))
    assert dict(counts.forms) == {"the": 4, "big": 3}  # those seen twice are five with them, one too many
    assert counts.pairs.counts.tolist() == [[3, 0, 3, 0]]  # the big


WORDS = st.sampled_from(
    [
        *("i", "I", "i'm", "it.", "the", "paris", "Paris", "nasa", "USA", "usa.", "e.g.", "vs.", "etc.", "however,"),
        *("(kjv)", "King", "james", "version", "3.", "1)", "`x.", "y`", "```\n", "https://a.b/c.", "\n", "\n-", "\n1."),
        *("iPhone", "pop!", "Pop!", "what?", "ß", "ŉ", "İ", "ǆ", "ﬁ", "é...", "[your", "name]", '"the', 'gatsby"', ":"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(WORDS | st.text(max_size=5), max_size=25).map(" ".join), min_size=2, max_size=4), st.booleans()
)
def test_nothing_but_case_changes_and_twice_is_once(contents: list[str], is_capitalized: bool) -> None:
    before = dialogue(*(text.capitalize() if is_capitalized else text for text in contents))
    after = restore(before, lexicon())
    assert [m["role"] for m in after] == [m["role"] for m in before]
    assert [m["content"].casefold() for m in after] == [m["content"].casefold() for m in before]
    assert [len(m["content"]) for m in after] == [len(m["content"]) for m in before]
    assert restore(after, lexicon()) == after
