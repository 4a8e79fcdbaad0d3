"""Dialogues that are too long end with an answer that fits. A byte is a token, and so is an end of sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zephyr_ray import schemas
from zephyr_ray.answers import EncodedDialogue, encode_dialogues
from zephyr_ray.config.model import Chat
from zephyr_ray.data.tokenized_dialogues import Cut, cut_at_turns, tokenize_rows
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.pipeline.tokenizer import TokenizerSource

QWEN_3 = (  # an empty reasoning in the last answer alone
    "{% for m in messages %}{{ m.role + '\n' + ('<think></think>' if m.role == 'assistant' and loop.last else '')"
    " + m.content + eos_token + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, texts, strict=False)]


def cut(tokenizer: Any, messages: list[dict[str, str]], length: int | None, how: str = "modern") -> Any:
    (found,) = cut_at_turns(lambda rows: encode_dialogues(tokenizer, rows, how), [messages], length)
    return found


@pytest.fixture(scope="module", params=["modern", "zephyr_legacy"])
def source(request: pytest.FixtureRequest, byte_tokenizer: str) -> TokenizerSource:
    return TokenizerSource(ModelSource(byte_tokenizer), Chat(tokenization=request.param))


def test_by_hand(byte_tokenizer: str) -> None:
    tokenizer = TokenizerSource(ModelSource(byte_tokenizer), Chat()).load()
    dialogue = talk("1", "22", "3", "44", "5", "66")
    (whole,) = encode_dialogues(tokenizer, [dialogue], "modern")
    assert isinstance(whole, EncodedDialogue)
    one = len("<|user|>\n1") + 1 + len("\n<|assistant|>\n22") + 1
    lengths = [one, 2 * one + 1, 3 * one + 2]
    assert len(whole.input_ids) == lengths[2]
    assert cut(tokenizer, dialogue, None) == cut(tokenizer, dialogue, lengths[2]) == Cut(whole)
    for length, kept in ((lengths[2] - 1, 2), (lengths[1], 2), (lengths[1] - 1, 1), (lengths[0], 1)):
        (shorter,) = encode_dialogues(tokenizer, [dialogue[: 2 * kept]], "modern")
        assert isinstance(shorter, EncodedDialogue)
        assert cut(tokenizer, dialogue, length) == Cut(shorter, lengths[2] - lengths[kept - 1], 6 - 2 * kept)
        assert shorter == EncodedDialogue(*(part[: lengths[kept - 1]] for part in whole))
    within = EncodedDialogue(*(part[: one - 1] for part in whole))
    assert cut(tokenizer, dialogue, one - 1) == Cut(within, lengths[2] - one + 1, 4, True)


WORDS = st.lists(st.text("ab\n", min_size=1, max_size=9), min_size=2, max_size=8).map(lambda t: t[: len(t) // 2 * 2])


def test_whatever_the_lengths(source: TokenizerSource) -> None:
    tokenizer, how = source.load(), source.chat.tokenization

    @settings(max_examples=40)
    @given(WORDS, st.integers(8, 160))
    def check(texts: list[str], length: int) -> None:
        dialogue = talk(*texts)
        encoded = encode_dialogues(tokenizer, [dialogue[:end] for end in range(2, len(texts) + 1, 2)], how)
        prefixes = [each for each in encoded if isinstance(each, EncodedDialogue)]
        fits = [each for each in prefixes if len(each.input_ids) <= length]
        found = cut(tokenizer, dialogue, length, how)
        longest = fits[-1] if fits else EncodedDialogue(*(part[:length] for part in prefixes[0]))
        assert found.dialogue == longest
        assert found.turns == len(texts) - 2 * max(1, len(fits))
        assert found.tokens == len(prefixes[-1].input_ids) - len(longest.input_ids)
        assert found.is_within == (not fits)

    check()


def test_the_answer_that_is_last_now_is_written_as_a_last_one(byte_tokenizer: str, tmp_path: Any) -> None:
    """And where it no longer fits by that, the one before it is."""
    file = tmp_path / "last.jinja"
    file.write_text(QWEN_3)
    tokenizer = TokenizerSource(ModelSource(byte_tokenizer), Chat(template=str(file))).load()
    dialogue = talk("1", "22", "3", "44", "5", "66")
    (two,) = encode_dialogues(tokenizer, [dialogue[:4]], "modern")
    (one,) = encode_dialogues(tokenizer, [dialogue[:2]], "modern")
    assert isinstance(two, EncodedDialogue)
    assert cut(tokenizer, dialogue, len(two.input_ids)).dialogue == two
    assert cut(tokenizer, dialogue, len(two.input_ids) - 1).dialogue == one


def test_rows(byte_tokenizer: str) -> None:
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat())
    dialogues = {
        "whole": ("1", "2"),
        "turns": ("1", "2", "3", "4" * 40),
        "answer": ("1", "2" * 60),
        "none": ("1" * 60, "2"),
    }
    table = pa.Table.from_pylist(
        [{"dialogue_id": name, "messages": talk(*texts), "source": name} for name, texts in dialogues.items()],
        schema=schemas.DIALOGUES,
    )
    rows = tokenize_rows(table, source=source, max_length=50).to_pylist()
    told = [(row["source"], row["reason"], row["turns_cut"], row["answer_cut"]) for row in rows]
    assert told == [
        ("whole", None, 0, False),
        ("turns", None, 2, False),
        ("answer", None, 0, True),
        ("none", "prompt_too_long", None, None),
    ]
    assert [len(row["input_ids"] or ()) for row in rows] == [28, 28, 50, 0]


def test_of_several_answers_the_last_alone_is_learnt_and_a_row_without_it_is_dropped(byte_tokenizer: str) -> None:
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat())
    talks = {"whole": talk("1", "2", "3", "4"), "one": talk("1", "2"), "cut": talk("1", "2", "3", "4" * 80)}
    table = pa.Table.from_pylist(
        [{"dialogue_id": name, "messages": messages, "source": name} for name, messages in talks.items()],
        schema=schemas.DIALOGUES,
    )
    every, last = (
        {
            row["source"]: row
            for row in tokenize_rows(table, source=source, max_length=80, only_last_answer=only).to_pylist()
        }
        for only in (False, True)
    )
    assert last["one"] == every["one"]
    before, after = (np.array(rows["whole"]["assistant_mask"]) for rows in (every, last))
    begins = np.flatnonzero(np.diff(before) == 1) + 1
    assert len(begins) == 2
    assert after.tolist() == [0] * begins[1] + before[begins[1] :].tolist()
    assert every["cut"]["reason"] is None
    assert (last["cut"]["reason"], last["cut"]["input_ids"]) == ("prompt_too_long", None)
