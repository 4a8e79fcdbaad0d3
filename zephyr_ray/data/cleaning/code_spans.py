"""Where code stands in a message, so that steps which look at prose leave it alone."""

from __future__ import annotations

import re

CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
"""A block between fences (or to the end of the message), or a span between backticks; `split` gives prose and code in
turn."""
_URL = re.compile(r"\b(?:https?://|www\.)\S+")


def prose_of(text: str) -> str:
    """The text with a space in place of each piece of code."""
    return CODE.sub(" ", text) if "`" in text else text


def without_addresses(text: str) -> str:
    """The text without the addresses of web pages."""
    return _URL.sub(" ", text) if "://" in text or "www." in text else text
