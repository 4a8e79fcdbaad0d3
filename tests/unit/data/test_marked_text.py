"""What is marked in texts, and what is left out of them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.data.marked_text import CUT, GONE, HIT, NEW, Piece, differences, found


def joined(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def marked(pieces: Sequence[Piece]) -> list[str]:
    return [piece.text for piece in pieces if piece.kind in (GONE, NEW, HIT)]


def hits(detail: str, *texts: str) -> list[tuple[int, str]]:
    turns = found([{"role": "user", "content": text} for text in texts], detail)
    return [(number, text) for number, turn in enumerate(turns) for text in marked(turn.pieces)]


def test_words_that_differ_are_marked_on_both_sides() -> None:
    before, after = differences("the cat sat. it slept, in paris.", "The cat sat. It slept, in Paris.")
    assert marked(before) == ["the", "it", "paris"]
    assert marked(after) == ["The", "It", "Paris"]


@given(st.text("ab. \n", max_size=30), st.text("ab. \n", max_size=30))
def test_short_texts_are_whole(before: str, after: str) -> None:
    old, new = differences(before, after)
    assert (joined(old), joined(new)) == (before, after)
    unmarked = [[piece.text for piece in side if not piece.kind] for side in (old, new)]
    assert "".join(unmarked[0]) == "".join(unmarked[1])


def test_of_long_texts_what_is_near_a_mark_is_shown() -> None:
    words = [f"word{number}" for number in range(3000)]
    changed = ["WORD" if number in (1000, 2000) else word for number, word in enumerate(words)]
    before, after = differences(" ".join(words), " ".join(changed))
    assert marked(before) == ["word1000", "word2000"]
    assert marked(after) == ["WORD", "WORD"]
    assert len(joined(after)) < 1000
    hidden = sum(int(piece.text.split()[1].replace(",", "")) for piece in after if piece.kind == CUT)
    shown = sum(len(piece.text) for piece in after if piece.kind != CUT)
    assert hidden + shown == len(" ".join(changed))
    assert all(word in {*words, "WORD"} for piece in after if piece.kind != CUT for word in piece.text.split())


def test_texts_with_nothing_in_common_are_compared_to_some_length() -> None:
    before, after = differences("a b " * 50_000, "c d " * 50_000)
    assert len(joined(before)) < 1500
    assert {piece.kind for piece in after} <= {NEW, CUT, ""}


def test_the_text_of_a_detail_is_marked() -> None:
    assert hits("I cannot", "Can you?", "Sorry, I cannot do it.") == [(1, "I cannot")]
    assert hits("no", "Do you not know? no!", "no") == [(1, "no")]  # all of a turn, before a part of one
    assert hits("no", "Do you not know, or no?") == [(0, "no")]  # a word, before a part of one
    assert hits("bench.txt:12: What is\nthe name of it", "Say: what is the name, of it?") == [
        (0, "what is the name, of it")
    ]
    assert hits("as an ai lang", "As an AI language model") == [(0, "As an AI lang")]  # a detail that was cut
    assert hits("...", "and so on ... and on") == [(0, "...")]
    assert hits("elsewhere", "here") == []
    assert hits("", "here") == []


def test_a_hit_in_the_middle_of_a_long_dialogue_is_shown_with_what_is_left_out() -> None:
    texts = [f"turn {number} " + "x" * 400 for number in range(40)]
    texts[20] = "y " * 500 + "here it is" + " z" * 500
    turns = found([{"role": "user", "content": text} for text in texts], "here it is")
    assert [turn.pieces[0].text for turn in (turns[0], turns[-1])] == ["17 more turns", "17 more turns"]
    assert len(turns) == 8
    assert marked(turns[4].pieces) == ["here it is"]
    assert sum(len(joined(turn.pieces)) for turn in turns) < 2500
