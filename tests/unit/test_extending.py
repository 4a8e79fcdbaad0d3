"""The Python of docs/extending.md does what the page says it does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.data.formats import layouts
from zephyr_ray.schemas import Dropped

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()


def example(name: str, **names: Any) -> Any:
    """The function of that name in one of the page's blocks."""
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"def {name}(" in block)
    exec(compile(block, "docs/extending.md", "exec"), names)
    return names[name]


def test_the_judge() -> None:
    judge = example("judge")
    asked = [{"role": "user", "content": "Say hello in at most 2 words."}]
    assert [judge(asked, answer) for answer in ("hello you", "hello to you all")] == [1.0, 0.5]
    assert judge([{"role": "user", "content": "Say hello."}], "hello") is None


def test_the_layout() -> None:
    read = example("_from_best_and_worst", **vars(layouts))
    pair = read({"question": "Why?", "best": "Because.", "worst": [{"role": "assistant", "content": "No."}]})
    assert (pair.prompt, pair.chosen, pair.rejected) == ([{"role": "user", "content": "Why?"}], "Because.", "No.")
    with pytest.raises(Dropped, match="not_text"):
        read({"question": 7, "best": "Because.", "worst": "No."})


def test_the_evaluation() -> None:
    words_more = example("words_more")
    estimate = words_more(["a b c", "a b", "a"], ["a", "a", "a"], ["p", "q", "r"], 0)
    assert estimate.value == 1.0
    assert (estimate.low, estimate.high) == (0.0, 2.0)


def test_what_the_page_names_is_there() -> None:
    """Files by their paths, and names in the file that the sentence ends with."""
    repo = Path(__file__).parents[2]
    paths = set(re.findall(r"`((?:zephyr_ray|jobs|tests)/[\w/]+\.(?:py|txt))`", PAGE)) - {
        "zephyr_ray/judging/rubrics/brevity.txt"
    }
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (repo / path).is_file()] == []
    code = "".join(path.read_text() for folder in ("zephyr_ray", "jobs") for path in (repo / folder).rglob("*.py"))
    names = set(re.findall(r"`(_?[a-z]\w+|[A-Z_]{4,})` (?:of|in) ", PAGE))
    assert len(names) > 5
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", code)] == []
