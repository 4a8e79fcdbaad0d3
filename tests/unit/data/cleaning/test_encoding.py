"""What was decoded wrongly is repaired, and what is right stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given

from tests.unit.data.cleaning.dialogues import any_messages, dialogue
from zephyr_ray.config.cleaning import Encoding
from zephyr_ray.data.cleaning.encoding import step

repaired = step(Encoding(type="encoding"))


def repaired_text(text: str, request: str = "Tell me more.") -> str:
    return repaired(dialogue(request, text))[1]["content"]


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("I donâ€™t know", "I don’t know"),
        ("The piÃ±ata costs Â£5.", "The piñata costs £5."),
        ("a pi√±ata", "a piñata"),  # UTF-8 read as Mac Roman
        ("He said \x93stop\x94 \x96 and left\x85", "He said “stop” – and left…"),
        ("Tom &amp; Jerry don&apos;t&nbsp;care", "Tom & Jerry don't\u00a0care"),
        ("rock &amp;amp;amp; roll", "rock & roll"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("non\x02standard\ufeff", "nonstandard"),
        ("\ud83d\ude00", "\U0001f600"),
        ("cafe\u0301", "café"),
    ],
)
def test_repaired(broken: str, whole: str) -> None:
    assert repaired_text(broken) == whole


@pytest.mark.parametrize(
    "text",
    [
        "Plain ASCII, with tabs\tand\nlines.",
        "“Curly” quotes, an em dash — and the author’s ellipsis…",
        "ＦＵＬＬ width, ﬁne ligatures, 10³ and ½",
        "Voilà ! Ça va être la fête à Œuilly, où l'été s'étire.",
        "Übergrößenträger müßten Äpfel äußerst öffentlich übergeben.",
        "Él comió piñas; ¿y tú?",
        "Ångström units, naïve façade, Dvořák, İstanbul",
        "你好，世界。 こんにちは！ Привет! مرحبا",
        "Emoji with joiners: 👩‍👩‍👧‍👦 and flags 🇩🇪",
        "AT&T & Co; R&D; fish&chips",
        "Write `&amp;` for an ampersand:\n```\nx = 'donâ€™t' &amp;&amp; y\n```",
        "```\nAn open fence with &quot;entities&quot;",
        "&notanentity; &#0; &#x7;",
    ],
)
def test_what_is_right_stays(text: str) -> None:
    messages = dialogue("Tell me more.", text)
    assert repaired(messages) is messages


def test_broken_text_as_the_subject_stays() -> None:
    messages = dialogue(
        "Why do I see donâ€™t instead of don't? Is the encoding wrong?", "It is: â€™ is a quote in UTF-8."
    )
    assert repaired(messages) is messages
    messages = dialogue("Which encoding has the byte 0x94?", "It is \xe2\x80\x94 as cp1252 has it.")
    assert repaired(messages) is messages
    messages = dialogue("How do I write < in HTML?", "Write &lt; for it.")
    assert repaired(messages) is messages
    assert repaired_text("caf&eacute; in a cafe\u0301", "What is Unicode?") == "café in a café"


def test_text_on_what_decodes_genes_is_repaired() -> None:
    assert repaired_text("He is gone\xe2\x80\x94for good.", "Who decoded the genes?") == "He is gone—for good."


@given(any_messages)
def test_any_unicode_becomes_storable_and_once_is_enough(messages) -> None:
    once = repaired(messages)
    assert [message["role"] for message in once] == [message["role"] for message in messages]
    assert repaired(once) is once
    assert all(message["content"].encode() is not None for message in once)
    prose = [message["content"] for message in once if "`" not in message["content"]]
    assert all(unicodedata.is_normalized("NFC", text) for text in prose)
