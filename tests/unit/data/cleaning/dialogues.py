"""Dialogues for tests of cleaning steps: short ones, and hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from zephyr_ray.data.formats.messages import Message


def dialogue(*contents: str, first: str = "user") -> list[Message]:
    """User and assistant in turn."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]


_PIECES = (
    "&amp;", "&#39;", "&lt;", "Ã©", "â€™", "\x85", "\r\n", "`", "```", "\ufffd", "\u200b", "\ud800", "e\u0301", "|",
    "7. ", "a@b.co ", "+49 30 1234567 ", "call 030 123 456 ", "the ", "the the the ", "sk-aB3", "A" * 130, "你好",
    "\n\n", ". And",
)  # fmt: skip
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.lists(st.sampled_from(_PIECES), max_size=30).map("".join),
)
"""Any Unicode, lone surrogates included, and what the steps look for."""
any_messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(("system", "user", "assistant")), "content": texts}), max_size=6
)
in_turn = st.lists(texts, min_size=1, max_size=3).map(
    lambda answers: dialogue(*(x for a in answers for x in ("Hi!", a)))
)
